"""Which rows of an unlabelled file a person should label next, by what a finished run knows."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kilotune.data.checks.duplicates import components, first_of_each
from kilotune.data.example import Example, Task
from kilotune.data.files.claims import claimed
from kilotune.data.files.table import Table, ending
from kilotune.data.files.writers import WRITERS, write_table
from kilotune.data.finding import Finding
from kilotune.data.formats import FORMATS
from kilotune.data.normalise import Dataset, without_answer
from kilotune.errors import KilotuneError
from kilotune.evaluation.active_learning import Array, diverse, entropy, margin
from kilotune.generation.answer import Prompting
from kilotune.models.pretrained import Model
from kilotune.preparation.prepare import NewRows, read, read_unanswered
from kilotune.progress import Progress, Silent
from kilotune.recipe.functions import MODEL
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.record import RunFolder
from kilotune.session.loading import open_tuned

ADDED = RANK, UNCERTAINTY, WHY = "rank", "uncertainty", "why"
# Labels that `why` names.
NAMED = 3

# Of closed labels, by the name of the strategy; `diverse` takes the first.
Measure = Callable[[Sequence[Sequence[float]]], Array]
UNCERTAINTIES: dict[str, Measure] = {"margin": margin, "entropy": entropy}
LIKELIHOOD = "likelihood"


@dataclass(frozen=True, slots=True)
class Unsure:
    """How unsure the model is of an example, higher is more, and why, in words."""

    score: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """A row to label: its number in messages (`file:2`), its text, and why it was chosen."""

    row: str
    text: str
    uncertainty: float | None
    why: str


@dataclass(frozen=True, slots=True)
class RowSelection:
    """What was written to `out`, in order of rank.

    `candidates` could have been chosen; `left_out` counts the other rows by the reason.
    """

    out: Path
    strategy: str
    task: Task
    rows: tuple[Chosen, ...]
    candidates: int
    left_out: Mapping[str, int]
    findings: tuple[Finding, ...]


def select(
    run: str | Path,
    file: str | Path | NewRows,
    count: int = 50,
    out: str | Path | None = None,
    *,
    strategy: str = "auto",
    seed: int | None = None,
    progress: Progress | None = None,
    trust_code: bool = False,
) -> RowSelection:
    """Choose the `count` rows of `file` whose labels would teach the model of `run` most.

    The file is in the format of the training file. Rows that have an answer already are left out,
    and so are those that are, or nearly are, a labelled text or another one that is chosen. `out`
    (else `FILE-to-label` in the current folder) holds the input's columns, the answers' column to
    be filled in, `rank`, `uncertainty` and `why`; it must be new. Of closed labels the uncertainty
    is that of their likelihoods; else it is the mean loss of the greedy answer's tokens, in nats.
    Raises KilotuneError where nothing is left to choose from, and for a model with code of its own
    unless `trust_code`.
    """
    progress = progress or Silent()
    folder = RunFolder(Path(run))
    rows = file if isinstance(file, NewRows) else NewRows(Path(file))
    recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
    folder.check_finished()
    strategy = _known(strategy, folder.read(DataDocument).task)
    out = Path(out or _place(rows.path))
    with claimed(out):
        format = folder.read(DataDocument).format
        dataset, _ = read_unanswered(rows, recipe, format, ADDED)
        return _selected(folder, recipe, dataset, count, out, strategy, seed, progress)


def _selected(
    folder: RunFolder,
    recipe: Recipe,
    dataset: Dataset,
    count: int,
    out: Path,
    strategy: str,
    seed: int | None,
    progress: Progress,
) -> RowSelection:
    data = folder.read(DataDocument)
    labelled = _labelled(recipe, progress)
    pool = _pool(dataset, [example for part in labelled for example in part.examples])
    seed = recipe.seed if seed is None else seed
    _check_any(pool, dataset.path)
    if strategy == "random":
        examples = random.Random(seed).sample(pool.examples, len(pool.examples))
        unsure = {example.id: Unsure(None, "drawn at random") for example in examples}
    else:
        asked = _Asked.open(folder.path, recipe, data.labels, pool.examples, progress)
        asked.leave_out_refused(pool)
        _check_any(pool, dataset.path)
        unsure = asked.unsure(pool.examples, strategy, progress)
        examples = sorted(pool.examples, key=lambda example: -(unsure[example.id].score or 0.0))
    distinct = first_of_each(examples)
    pool.left_out["nearly as another one"] = len(examples) - len(distinct)
    chosen = _chosen(distinct, unsure, count, strategy, seed)
    assert dataset.table is not None
    _write(out, dataset.table, chosen, _answer_column(dataset, labelled, data.format))
    findings = (*dataset.findings, *pool.refused)
    left_out = {why: rows for why, rows in pool.left_out.items() if rows}
    return RowSelection(out, strategy, data.task, chosen, len(distinct), left_out, findings)


@dataclass(slots=True)
class _Pool:
    """The rows to choose from, without answers; how many others there are, by reason; and what
    was found about those that cannot be put to the model.
    """

    examples: list[Example]
    left_out: dict[str, int]
    refused: list[Finding] = field(default_factory=list)


def _check_any(pool: _Pool, file: Path) -> None:
    """Raise KilotuneError where there is nothing to choose from."""
    if not pool.examples:
        others = "; ".join(f"{rows}: {why}" for why, rows in pool.left_out.items() if rows)
        raise KilotuneError(
            f"no row is left to be labelled ({others or 'none could be read'})",
            where=str(file),
            fix="Give rows that have no label yet",
        )


def _known(strategy: str, task: Task) -> str:
    """The strategy by its name. Raises KilotuneError where the task has none of that name."""
    names = (*(UNCERTAINTIES if task == "classify" else (LIKELIHOOD,)), "diverse", "random")
    if strategy == "auto":
        return "entropy" if task == "classify" else "diverse"  # docs/selection.md has the figures
    if strategy not in names:
        raise KilotuneError(
            f"no strategy '{strategy}' where the task is {task}",
            where="--strategy",
            fix=f"Choose auto, {', '.join(names[:-1])} or {names[-1]}",
        )
    return strategy


def _place(file: Path) -> Path:
    """Where a selection goes that was given no place: into the current folder."""
    form = ending(file)
    name = file.name.removesuffix(".gz")
    stem = name.removesuffix(Path(name).suffix) if form else name
    return Path(f"{stem}-to-label{form if form in WRITERS else '.csv'}")


def _labelled(recipe: Recipe, progress: Progress) -> list[Dataset]:
    """What is labelled already: the files of the run, as far as they are still there."""
    try:
        files = read(recipe)
    except KilotuneError as error:
        progress.say(f"warning: texts like those of the run's files are not left out: {error}")
        return []
    return [part for part in (files.train, files.validation, files.test) if part is not None]


def _pool(dataset: Dataset, labelled: Sequence[Example]) -> _Pool:
    answered = [example for example in dataset.examples if (example.answer or "").strip()]
    rest = [e for e in dataset.examples if not (e.answer or "").strip()]
    asking = [without_answer(example) for example in rest if example.text or example.images]
    known = [*labelled, *answered]
    numbers = components([replace(example, group=None) for example in (*known, *asking)])
    taken = set(numbers[: len(known)])
    fresh = [e for e, n in zip(asking, numbers[len(known) :], strict=True) if n not in taken]
    return _Pool(
        fresh,
        {
            "has an answer": len(answered),
            "says nothing": len(rest) - len(asking),
            "as a labelled text, or nearly": len(asking) - len(fresh),
        },
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """The tuned model, how it is asked, and the labels, if they are closed."""

    model: Model
    prompting: Prompting
    labels: tuple[str, ...]

    @classmethod
    def open(
        cls,
        run: Path,
        recipe: Recipe,
        labels: Sequence[str],
        examples: Sequence[Example],
        progress: Progress,
    ) -> "_Asked":
        progress.stage("Loading the model")
        pictured = any(example.images for example in examples)
        return cls(*open_tuned(run, recipe, labels, pictured=pictured), tuple(labels))

    def leave_out_refused(self, pool: _Pool) -> None:
        """Take out of `pool` what cannot be put to the model."""
        pool.refused = self.prompting.refusals(pool.examples, self.labels)
        rows = {row for finding in pool.refused for row in finding.rows}
        pool.left_out["cannot be put to the model"] = len(rows)
        pool.examples = [example for example in pool.examples if example.id not in rows]

    def unsure(
        self, examples: Sequence[Example], strategy: str, progress: Progress
    ) -> dict[str, Unsure]:
        """How unsure the model is of each example, by its id."""
        if self.labels:
            found = self._of_labels(examples, UNCERTAINTIES.get(strategy, margin), progress)
        else:
            found = self._of_answers(examples, progress)
        return {example.id: one for example, one in zip(examples, found, strict=True)}

    def _of_labels(
        self, examples: Sequence[Example], measure: Measure, progress: Progress
    ) -> list[Unsure]:
        scores = self.prompting.scores(
            self.model, examples, self.labels, progress, "scoring labels"
        )
        likely = [score.probabilities for score in scores]
        values = measure(likely).tolist() if likely else []
        return [Unsure(v, self._named(row)) for v, row in zip(values, likely, strict=True)]

    def _named(self, probabilities: Sequence[float]) -> str:
        pairs = sorted(zip(probabilities, self.labels, strict=True), key=lambda pair: -pair[0])
        return ", ".join(f"{label} {share:.2f}" for share, label in pairs[:NAMED])

    def _of_answers(self, examples: Sequence[Example], progress: Progress) -> list[Unsure]:
        greedy = self.prompting.at(0.0)
        said = greedy.answers(self.model, examples, progress, "answering")
        losses = greedy.losses(self.model, examples, said, progress, "scoring answers")
        return [
            Unsure(loss, f"{loss:.2f} nats a token in its answer of {answer.tokens} tokens")
            for loss, answer in zip(losses, said, strict=True)
        ]


def _chosen(
    examples: Sequence[Example],
    unsure: Mapping[str, Unsure],
    count: int,
    strategy: str,
    seed: int,
) -> tuple[Chosen, ...]:
    """The rows in order of rank; `examples` are, the most uncertain first."""
    stands_for = dict.fromkeys(range(min(count, len(examples))), 1)
    if strategy == "diverse":
        scores = [unsure[example.id].score or 0.0 for example in examples]
        stands_for = diverse([example.text for example in examples], scores, count, seed=seed)
    rows = []
    for place, like in stands_for.items():
        example, own = examples[place], unsure[examples[place].id]
        why = f"{own.why}; like {like - 1} other uncertain rows" if like > 1 else own.why
        score = None if own.score is None else round(own.score, 6)
        rows.append(Chosen(example.id, example.text, score, why))
    return tuple(rows)


def _answer_column(dataset: Dataset, labelled: Sequence[Dataset], format: str) -> list[str]:
    """The column to be added for answers, as the training file calls it.

    None where the file has it, or where answers are turns of a conversation.
    """
    if dataset.answers:
        return []
    for part in labelled:
        if part.answers:
            return sorted(part.answers)[:1]
    forms = [FORMATS[name] for name in format.split(", ") if name in FORMATS]
    return [form.fields[form.answers[0]][0] for form in forms if form.answers][:1]


def _write(out: Path, table: Table, chosen: Sequence[Chosen], answers: Sequence[str]) -> None:
    by_id = {row.id("file"): row.values for row in table.rows}
    rows = [
        {
            **by_id[one.row],
            **dict.fromkeys(answers, ""),
            RANK: rank,
            UNCERTAINTY: one.uncertainty,
            WHY: one.why,
        }
        for rank, one in enumerate(chosen, 1)
    ]
    write_table(out, (*table.columns, *answers, *ADDED), rows)
