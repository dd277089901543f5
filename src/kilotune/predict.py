"""Answers to new prompts, by a finished run."""

from dataclasses import dataclass, replace
from pathlib import Path

from kilotune.data.example import Task
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.formats import FORMATS
from kilotune.data.normalise import without_answer
from kilotune.data.writers import check_writable, write_table
from kilotune.errors import KilotuneError
from kilotune.evaluate.tasks import TASKS, UNREADABLE
from kilotune.experiments import record
from kilotune.experiments.record import RunFolder
from kilotune.generate.answer import Prompting
from kilotune.models.export import load_tuned
from kilotune.models.features import FEATURES_SHARE, open_eyes
from kilotune.models.load import locate
from kilotune.models.qwen import sequence_limit
from kilotune.models.vision import load_vision
from kilotune.preparation import reading
from kilotune.progress import Progress, Silent
from kilotune.render.probe import chat_template
from kilotune.render.wording import wording
from kilotune.train.memory import available_bytes

COLUMN, PROBABILITY, NOT_ANSWERED = "prediction", "probability", "not_answered"


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was written: rows, how many of them with an empty prediction, and what went wrong.

    `findings` of severity error name the rows that were not put to the model.
    """

    task: Task
    rows: int
    empty: int
    findings: tuple[Finding, ...]

    @property
    def not_answered(self) -> dict[str, str]:
        """The rows that were not put to the model, and the code of why."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        return {row: finding.code for finding in reversed(errors) for row in finding.rows}


def predict(run: Path, file: Path, out: Path, progress: Progress | None = None) -> Predictions:
    """Answer every row of `file` with the tuned model of `run`; write it with the answers.

    The file is in the format of the training file and needs no answers; those it has are not
    looked at. `out` holds the input's columns and `prediction`, which is empty where there was no
    text, or where the answer named no label or held no JSON. Where the labels are closed,
    `probability` is the predicted label's among them, by the likelihood of each as the whole
    answer; the generated answer decides, not the probability. Rows that cannot be put to the
    model (too long, refused by its template) are left without an answer; only where there are
    any, a column `not_answered` says why. Raises KilotuneError rather than overwrite anything.
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
    # A folder may have been in several formats.
    read_as = data["format"] if data["format"] in FORMATS else recipe.data.format
    alike = replace(reading(recipe.data), format=read_as, group=None)
    dataset = alike.load(file, "file", answered=False)
    table = dataset.table
    assert table is not None
    stop_on_errors(table.faults("file"), str(file))  # there would be no row to write
    labels = data["labels"]
    added: tuple[str, ...] = (COLUMN, PROBABILITY) if labels else (COLUMN,)
    for name in (*added, NOT_ANSWERED):
        if name in table.columns:
            raise KilotuneError(
                f"there is a column '{name}' already", where=str(file), fix="Rename it"
            )
    for finding in dataset.findings:
        if finding.severity != "error":  # errors are given back, with all that was not answered
            progress.say(f"{finding.severity}: {finding}")
    examples = [without_answer(e) for e in dataset.examples if e.text or e.images]
    progress.stage("Loading the model")
    model, tokenizer, generation = load_tuned(run, recipe, available_bytes())
    words = wording(recipe.data.system, recipe.data.question, labels)
    # The tokenizer was saved with the template that it was tuned with.
    pictured = any(example.images for example in examples)
    vision = load_vision(locate(recipe.model), recipe.model, needed=pictured)
    template = chat_template(tokenizer, arguments=recipe.model.template_arguments, pictures=vision)
    eyes = None if vision is None else open_eyes(vision, model, available_bytes() // FEATURES_SHARE)
    prompting = Prompting(
        template,
        words,
        generation,
        recipe.data.max_length,
        recipe.seed,
        sequence_limit(model.config),
        eyes,
    )
    findings = (*dataset.findings, *prompting.refusals(examples))
    refused = Predictions(data["task"], len(table.rows), 0, findings).not_answered
    examples = [example for example in examples if example.id not in refused]
    said = prompting.answers(model, examples, progress, "answering")
    read = TASKS[data["task"]].read
    answers: dict[str, dict[str, str | float | None]] = {
        example.id: {COLUMN: read(answer.text, labels)}
        for example, answer in zip(examples, said, strict=True)
    }
    if labels:
        scored = prompting.scores(model, examples, labels, progress, "scoring labels")
        for example, scores in zip(examples, scored, strict=True):
            answer = answers[example.id]
            by_label = dict(zip(labels, (round(p, 6) for p in scores.probabilities), strict=True))
            answer[PROBABILITY] = by_label.get(str(answer[COLUMN]))
    nothing = {COLUMN: UNREADABLE, PROBABILITY: None} if labels else {COLUMN: UNREADABLE}
    rows = [{**row.values, **answers.get(row.id("file"), nothing)} for row in table.rows]
    if refused:
        added = (*added, NOT_ANSWERED)
        for row, source in zip(rows, table.rows, strict=True):
            row[NOT_ANSWERED] = refused.get(source.id("file"), "")
    write_table(out, (*table.columns, *added), rows)
    empty = sum(row[COLUMN] == UNREADABLE for row in rows)
    return Predictions(data["task"], len(rows), empty, findings)
