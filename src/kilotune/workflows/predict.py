"""Answers to new prompts, by a finished run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kilotune.data.example import Example, Task
from kilotune.data.files.claims import claimed
from kilotune.data.files.formulas import formulas
from kilotune.data.files.writers import write_table
from kilotune.data.finding import Finding
from kilotune.data.normalise import without_answer
from kilotune.evaluation.task_metrics import UNREADABLE, reader
from kilotune.generation.answer import Prompting
from kilotune.models.pretrained import Model
from kilotune.models.tuned_weights import tuned_folder
from kilotune.preparation.prepare import NewRows, read_unanswered
from kilotune.progress import Progress, Silent
from kilotune.recipe.functions import MODEL
from kilotune.recipe.schema import Recipe
from kilotune.runs import record
from kilotune.runs.documents import DataDocument
from kilotune.runs.journal import Journal, remove_served
from kilotune.runs.record import RunFolder, fingerprint
from kilotune.session.loading import open_tuned
from kilotune.session.simpler_answers import (
    COLUMN,
    PROBABILITY,
    Answer,
    Answerer,
    simpler_system,
)

NOT_ANSWERED = "not_answered"
# Examples that are answered together, and lost together when the work is stopped.
CHUNK = 64


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


def predict(
    run: str | Path,
    file: str | Path | NewRows,
    out: str | Path,
    progress: Progress | None = None,
    *,
    system: str = "tuned",
    trust_code: bool = False,
) -> Predictions:
    """Answer every row of `file` with the tuned model of `run`; write it with the answers.

    `system` may name a simpler one instead, that the run has fitted: one of SIMPLER.

    The file is in the format of the training file and needs no answers; those it has are not
    looked at. `out` holds the input's columns and `prediction`, which is empty where there was no
    text, or where the answer named no label or held no JSON. Where the labels are closed,
    `probability` is the predicted label's among them, by the likelihood of each as the whole
    answer; the generated answer decides, not the probability. Rows that cannot be put to the
    model (too long, refused by its template) are left without an answer; only where there are
    any, a column `not_answered` says why. Raises KilotuneError rather than overwrite anything, and
    for a model with code of its own unless `trust_code`.

    Answers are kept in `OUT.part` as they come; the same call goes on from there, to the same
    file as if it had not been stopped.
    """
    folder, out = RunFolder(Path(run)), Path(out)
    rows = file if isinstance(file, NewRows) else NewRows(Path(file))
    recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
    folder.check_finished()
    remove_served(out)
    with claimed(out):
        return _predicted(folder, recipe, system, rows, out, progress or Silent())


def _predicted(
    folder: RunFolder, recipe: Recipe, system: str, new: NewRows, out: Path, progress: Progress
) -> Predictions:
    data = folder.read(DataDocument)
    task, labels = data.task, data.labels
    added = (*_added(labels), NOT_ANSWERED)
    dataset, table = read_unanswered(new, recipe, data.format, added)
    for finding in dataset.findings:
        if finding.severity != "error":  # errors are given back, with all that was not answered
            progress.say(f"{finding.severity}: {finding}")
    examples = [without_answer(e) for e in dataset.examples if e.text or e.images]
    progress.stage("Loading the model")
    asked: Answerer
    pictured = any(example.images for example in examples)
    if system == "tuned":
        asked = Tuned(*open_tuned(folder.path, recipe, labels, pictured=pictured), task, labels)
    else:
        asked = simpler_system(system, folder, recipe, data, pictured=pictured)
    findings = (*dataset.findings, *asked.refusals(examples))
    refused = Predictions(task, len(table.rows), 0, findings).not_answered
    examples = [example for example in examples if example.id not in refused]
    journal = Journal(out, _job(folder, system, examples), COLUMN)
    try:
        answers = _all_answers(asked, examples, journal, progress)
    except KeyboardInterrupt:
        progress.say(f"Stopped; what was answered is in {journal.path}, the same command goes on")
        raise
    nothing = {COLUMN: UNREADABLE, PROBABILITY: None} if labels else {COLUMN: UNREADABLE}
    rows = [{**row.values, **answers.get(row.id("file"), nothing)} for row in table.rows]
    if not refused:
        added = _added(labels)
    else:
        for row, source in zip(rows, table.rows, strict=True):
            row[NOT_ANSWERED] = refused.get(source.id("file"), "")
    # Labels are the user's own.
    said = {} if labels else {id: str(answer[COLUMN]) for id, answer in answers.items()}
    for finding in (found := formulas(out, said.items())):
        progress.say(f"{finding.severity}: {finding}")
    if journal.path.exists():
        journal.complete()
    write_table(out, (*table.columns, *added), rows)
    journal.remove()
    empty = sum(row[COLUMN] == UNREADABLE for row in rows)
    return Predictions(task, len(rows), empty, (*findings, *found))


def _added(labels: Sequence[str]) -> tuple[str, ...]:
    return (COLUMN, PROBABILITY) if labels else (COLUMN,)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The tuned model, how it is asked, and how its answers are read."""

    model: Model
    prompting: Prompting
    task: Task
    labels: tuple[str, ...]

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        """Those that cannot be asked, by what keeps them from it."""
        return self.prompting.refusals(examples, self.labels)

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        """What is added to the row of each, by its id; `start` is the number of the first."""
        prompting = replace(self.prompting, seed=self.prompting.seed + start)
        said, scored = prompting.scored_answers(
            self.model, examples, self.labels, Silent(), "answering"
        )
        read = reader(self.task, self.labels, prompting.wording)
        answers: dict[str, Answer] = {
            example.id: {COLUMN: read(answer.text)}
            for example, answer in zip(examples, said, strict=True)
        }
        for example, scores in zip(examples, scored, strict=False):  # of closed labels alone
            answer = answers[example.id]
            rounded = (round(p, 6) for p in scores.probabilities)
            by_label = dict(zip(self.labels, rounded, strict=True))
            answer[PROBABILITY] = by_label.get(str(answer[COLUMN]))
        return answers


def _job(folder: RunFolder, system: str, examples: Sequence[Example]) -> str:
    """What tells one job from another: the run, its decoding, who is asked, and what."""
    digest = hashlib.sha256(fingerprint(examples).encode())
    if system != "tuned":
        digest.update(system.encode())
    for path in (
        folder / record.RECIPE,
        folder / record.VERDICT,
        tuned_folder(folder.path) / "generation_config.json",
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _all_answers(
    asked: Answerer, examples: Sequence[Example], journal: Journal, progress: Progress
) -> dict[str, Answer]:
    """What is added to the row of each example, by its id; what `journal` has is not done anew."""
    answers: dict[str, Answer] = journal.read()
    if answers:
        progress.say(f"{len(answers)} of {len(examples)} rows are answered already")
    by_length = sorted(examples, key=lambda example: -len(example.text))
    with progress.bar("answering", len(examples)) as bar:
        for start in range(0, len(by_length), CHUNK):
            chunk = by_length[start : start + CHUNK]
            if not all(example.id in answers for example in chunk):
                found = asked.answers(chunk, start)
                journal.append(found)
                answers.update(found)
            bar.advance(len(chunk))
    return answers
