"""Labels for new texts, by a finished run."""

from pathlib import Path

from kilotune.data.formats import FORMATS
from kilotune.data.normalise import load_dataset, without_answer
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

COLUMN = "prediction"


def predict(run: Path, file: Path, out: Path, progress: Progress | None = None) -> int:
    """Label every row of `file` with the tuned model of `run`; write it with the answers.

    The file is in the format of the training file and needs no answers; those it has are not
    looked at. `out` holds the input's columns and `prediction`, which is empty where there was no
    text or the answer named no label. Returns how many those are. Raises KilotuneError rather
    than overwrite anything.
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
    settings = recipe.data
    read_as = data.get("format")
    dataset = load_dataset(
        file,
        # A folder may have been in several formats.
        format=read_as if read_as in FORMATS else settings.format,
        columns=settings.columns,
        text=settings.text,
        task=settings.task,
        source="file",
        answered=False,
    )
    table = dataset.table
    assert table is not None
    if COLUMN in table.columns:
        raise KilotuneError(
            f"there is a column '{COLUMN}' already", where=str(file), fix="Rename it"
        )
    for finding in dataset.findings:
        progress.say(f"{finding.severity}: {finding}")
    examples = [without_answer(example) for example in dataset.examples if example.text]
    progress.stage("Loading the model")
    model, tokenizer, generation = load_tuned(run, recipe.model)
    words = wording(recipe.data.system, recipe.data.question, data["labels"])
    prompting = Prompting(
        chat_template(tokenizer), words, generation, recipe.data.max_length, recipe.seed
    )
    said = prompting.answers(model, examples, progress, "predicting")
    labels = {
        example.id: parse_label(answer.text, data["labels"])
        for example, answer in zip(examples, said, strict=True)
    }
    rows = [{**row.values, COLUMN: labels.get(row.id("file"), NO_LABEL)} for row in table.rows]
    write_table(out, (*table.columns, COLUMN), rows)
    return sum(row[COLUMN] == NO_LABEL for row in rows)
