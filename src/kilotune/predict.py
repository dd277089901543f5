"""Labels for new texts, by a finished run."""

from pathlib import Path

from kilotune.data.example import Example, Message, Origin
from kilotune.data.normalise import TEXT_COLUMNS, as_text, find_column
from kilotune.data.readers import read_table
from kilotune.data.writers import check_writable, write_table
from kilotune.errors import KilotuneError
from kilotune.evaluate.metrics import NO_LABEL, parse_label
from kilotune.experiments import record
from kilotune.experiments.record import RunFolder
from kilotune.generate.answer import Prompting
from kilotune.models.export import load_tuned
from kilotune.progress import Progress, Silent
from kilotune.render.template import chat_template
from kilotune.render.wording import wording
from kilotune.train.memory import available_bytes

COLUMN = "prediction"


def predict(run: Path, file: Path, out: Path, progress: Progress | None = None) -> int:
    """Label every row of `file` with the tuned model of `run`; write it with the answers.

    `out` holds the input's columns and `prediction`, which is empty where there was no text or
    the answer named no label. Returns how many those are. Raises KilotuneError rather than
    overwrite anything.
    """
    progress = progress or Silent()
    folder = RunFolder(run)
    recipe = folder.read_recipe()
    if not folder.finished:
        raise KilotuneError(
            "the run is not finished", where=str(run), fix=f"Go on with it: kilotune resume {run}"
        )
    data = folder.read_json(record.DATA)
    check_writable(out)
    table = read_table(file)
    column = find_column(table, recipe.data.text, TEXT_COLUMNS, "text")
    if COLUMN in table.columns:
        raise KilotuneError(
            f"there is a column '{COLUMN}' already", where=str(file), fix="Rename it"
        )
    examples = [
        Example(f"file:{row.line}", (Message("user", text),), Origin(file.name, row.line))
        for row in table.rows
        if (text := as_text(row.values.get(column)))
    ]
    progress.stage("Loading the model")
    model, tokenizer, generation = load_tuned(run, recipe, available_bytes())
    words = wording(recipe.data.system, recipe.data.question, data["labels"])
    prompting = Prompting(
        chat_template(tokenizer), words, generation, recipe.data.max_length, recipe.seed
    )
    said = prompting.answers(model, examples, progress, "predicting")
    labels = {
        example.origin.row: parse_label(answer.text, data["labels"])
        for example, answer in zip(examples, said, strict=True)
    }
    rows = [{**row.values, COLUMN: labels.get(row.line, NO_LABEL)} for row in table.rows]
    write_table(out, (*table.columns, COLUMN), rows)
    return sum(row[COLUMN] == NO_LABEL for row in rows)
