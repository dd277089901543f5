"""The data of a run: read, checked and split. Needs no model and no torch."""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kilotune.data.checks import check_examples, check_leakage, check_part, check_split
from kilotune.data.cleaning import cleaned
from kilotune.data.column_plan import Reading
from kilotune.data.columns.joined import Columns, names_in, shown
from kilotune.data.columns.own_parts import check_one_each, own_parts
from kilotune.data.columns.row_filter import row_condition
from kilotune.data.example import Task
from kilotune.data.files.readers import no_such_file, read_table
from kilotune.data.files.table import Table
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.formats import FORMATS
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.data.split import Split, split_examples
from kilotune.errors import KilotuneError
from kilotune.evaluation.task_metrics import TASKS, own_scores
from kilotune.progress import Progress
from kilotune.recipe.locations import with_whole_paths
from kilotune.recipe.schema import DataSettings, Recipe
from kilotune.rendering.wording import Wording, wording
from kilotune.runs.documents import DataDocument, OwnSystem, SplitIds
from kilotune.runs.record import fingerprint

# Of few examples three epochs are too few steps for a model to learn what it is asked: a hundred
# are not, measured on film reviews, Reuters R8 and 20 Newsgroups (docs/concepts/auto.md).
STEPS, EPOCHS = 100, (3, 20)


@dataclass(frozen=True, slots=True)
class Files:
    """The labelled file, and the validation and test files where they are given."""

    train: Dataset
    validation: Dataset | None
    test: Dataset | None


@dataclass(frozen=True, slots=True)
class NewRows:
    """A file of rows to be answered or labelled.

    `columns` are those of fields that are called otherwise than in the training file, `images` is
    the folder that paths of images begin in, where it is another.
    """

    path: Path
    columns: Mapping[str, Columns] = field(default_factory=dict)
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of a run before its model is loaded."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    parts: Split
    task: Task
    labels: tuple[str, ...]
    wording: Wording
    fingerprint: str
    format: str
    # Whether the validation part is a file, or was named by the data, and not split off.
    own_validation: bool = False

    @property
    def pictured(self) -> list[str]:
        """The examples that have images."""
        parts = (self.parts.train, self.parts.validation, self.parts.test)
        return [example.id for part in parts for example in part if example.images]

    def record(self) -> DataDocument:
        """What `data.json` holds."""
        return DataDocument(
            fingerprint=self.fingerprint,
            format=self.format,
            task=self.task,
            labels=self.labels,
            wording=self.wording,
            split=SplitIds(**self.parts.ids()),
            own_system=OwnSystem(text=self._own_system()),
        )

    def _own_system(self) -> str | None:
        """The system message that examples bring along, "" for none, None where they differ."""
        parts = (self.parts.train, self.parts.validation, self.parts.test)
        first = (example.messages[0] for part in parts for example in part)
        found = {message.text if message.role == "system" else "" for message in first}
        return found.pop() if len(found) == 1 else None


def prepare(recipe: Recipe, progress: Progress) -> Prepared:
    """Read, check and split: everything that needs no model."""
    progress.stage("Reading and checking the data")
    recipe = with_whole_paths(recipe)
    _check_there(recipe)
    files = read(recipe)
    data = files.train
    progress.say(f"detected: {data.title}; task: {data.task} ({data.why})")
    if data.unused:
        progress.say(f"columns that are not read: {', '.join(data.unused)}")
    recipe = _settled(recipe, files)
    findings = check_files(files)
    parts = split(recipe, files)
    recipe = _with_epochs(recipe, len(parts.train))
    findings += [
        *parts.findings,
        *check_split({n: part for n, part in parts.named().items() if part}),
    ]
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")
    labels = tuple(sorted({example.label for example in data.examples if example.label}))
    words = wording(recipe.data.system, recipe.data.question, labels, recipe.data.label_wording)
    if recipe.judge.metric:  # tried now, since it is needed hours later
        answer = parts.train[0].label or parts.train[0].answer or ""
        own_scores(recipe.judge.metric, [answer], [answer])
    every = (*parts.train, *parts.validation, *parts.test)
    sizes = ", ".join(f"{len(ids)} {name}" for name, ids in parts.ids().items())
    what = f"{len(labels)} labels" if labels else data.task
    progress.say(f"{len(every)} examples, {what}: {sizes} (held out)")
    return Prepared(
        recipe, tuple(findings), parts, data.task, labels, words, fingerprint(every), data.format,
        files.validation is not None,
    )  # fmt: skip


def read(recipe: Recipe) -> Files:
    """The labelled file, and the validation and test files where they are given."""
    data = recipe.data
    for name, given in (("validation", data.validation), ("test", data.test)):
        if given == data.train:
            raise KilotuneError(
                f"the {name} file is the training file",
                where=str(data.train),
                fix="Give another file, or none to have a part split off",
            )

    train = load_dataset(data.train, reading(data))
    beside = {"validation": data.validation, "test": data.test}
    parts = read_parts(train, reading(data), beside)
    return Files(parts.get("train", train), parts.get("validation"), parts.get("test"))


def read_parts(
    train: Dataset, reading: Reading, given: Mapping[str, Path | None]
) -> dict[str, Dataset]:
    """The parts beside `train` by name: files that are `given`, and those that its column names.

    With such a column the rows to train on are a part, too. Rows of files are kept by the columns
    that they have. Raises KilotuneError where a part is given twice.
    """
    alike = reading_of_part(reading, train)
    parts = {
        name: load_dataset(path, _kept_by_what_it_has(alike, path), source=name, judged=False)
        for name, path in given.items()
        if path
    }
    if reading.split is None:
        return parts
    own = own_parts(train, reading.split)
    check_one_each(parts, own, reading.split)
    return {**parts, **own}


def _kept_by_what_it_has(reading: Reading, path: Path) -> Reading:
    if not reading.keep:
        return reading
    columns = read_table(path, partial=True).columns
    return replace(
        reading, keep=tuple(one for one in reading.keep if row_condition(one).column in columns)
    )


def reading_of_part(reading: Reading, train: Dataset) -> Reading:
    """How a validation or test file beside `train` is read: in the same columns."""
    columns = {**train.chosen, **reading.columns}
    return replace(reading, task=train.task, columns=columns, split=None, ignore=())


def _check_there(recipe: Recipe) -> None:
    """Raise KilotuneError for a file that is not there, with the setting that names it."""
    named = [
        (f"data.{part}", getattr(recipe.data, part))
        for part in ("train", "validation", "test", "images")
    ]
    for name, path in (*named, ("unlabeled.file", recipe.unlabeled.file)):
        if path is not None and not os.path.exists(path):  # as read_table asks
            raise no_such_file(path, f"Check the path, or say where it is now: --set {name}=FILE")


def reading(data: DataSettings) -> Reading:
    """How the recipe says that its files are to be read."""
    return Reading(
        data.format, data.columns, data.text, data.label, data.group, data.task, data.keep,
        data.split, data.ignore, images=data.images,
    )  # fmt: skip


def reading_alike(recipe: Recipe, format: str) -> Reading:
    """How new rows are read: in the `format` that the training file had, and without groups."""
    # A folder may have been in several formats.
    read_as = format if format in FORMATS else recipe.data.format
    return replace(reading(recipe.data), format=read_as, group=None, keep=(), split=None, ignore=())


def read_unanswered(
    rows: NewRows, recipe: Recipe, format: str, adding: Collection[str]
) -> tuple[Dataset, Table]:
    """New rows, in the `format` that the training file had; they need no answers.

    Raises KilotuneError where a column that the caller is `adding` is there already, or where rows
    cannot be read: they could not be written again.
    """
    file, alike = rows.path, reading_alike(recipe, format)
    trained = {**alike.columns, **({"text": alike.text} if alike.text else {})}
    called = _names_trained(trained, rows)
    alike = replace(alike, columns={**trained, **rows.columns}, text=None, called=called)
    alike = replace(alike, images=rows.images or alike.images)
    dataset = load_dataset(file, alike, source="file", answered=False)
    table = dataset.table
    assert table is not None
    stop_on_errors(table.faults("file"), str(file))
    for name in adding:
        if name in table.columns:
            raise KilotuneError(
                f"there is a column '{name}' already", where=str(file), fix="Rename it"
            )
    return dataset, table


def _names_trained(trained: Mapping[str, Columns], rows: NewRows) -> dict[str, str]:
    """What joined columns were called in training, by what they are called in the new rows.

    Raises KilotuneError where there is another number of them.
    """
    called: dict[str, str] = {}
    for name, columns in rows.columns.items():
        old, new = names_in(trained.get(name, name)), names_in(columns)
        if len(old) != len(new):
            raise KilotuneError(
                f"the {name} was trained on {len(old)} column{'s' * (len(old) > 1)} "
                f"({shown(old)}), not on {len(new)}",
                where=str(rows.path),
                fix="Name as many, in the same order",
            )
        if len(new) > 1:
            called |= zip(new, old, strict=True)
    return called


def check_files(files: Files) -> list[Finding]:
    """Everything that is wrong with the data. Raises FindingsError on errors, of all files."""
    data = files.train
    found = {data.path: [*data.findings, *check_examples(data.examples, data.task)]}
    for name, given in (("validation", files.validation), ("test", files.test)):
        if given is not None:
            among = check_part(data.examples, given.examples, name, data.task)
            found.setdefault(given.path, []).extend((*given.findings, *among))
    wrong = [str(path) for path, of in found.items() if any(f.severity == "error" for f in of)]
    findings = [finding for of in found.values() for finding in of]
    stop_on_errors(findings, ", ".join(wrong))
    if files.validation and files.test:
        parts = files.validation.examples, files.test.examples
        findings += check_leakage(*parts, "test", "validation")
    return findings


def split(recipe: Recipe, files: Files) -> Split:
    """Train, validation and test by the recipe; given parts stay as they are."""
    return split_examples(
        files.train.examples,
        validation=files.validation.examples if files.validation else None,
        test=files.test.examples if files.test else None,
        validation_fraction=recipe.data.validation_fraction,
        test_fraction=recipe.data.test_fraction,
        seed=recipe.seed,
    )


def clean(prepared: Prepared, progress: Progress) -> Prepared:
    """The run's data without what `data.clean` leaves out of the training part.

    Raises KilotuneError where nothing would be left to learn from.
    """
    data, parts = prepared.recipe.data, prepared.parts
    if not data.clean:
        return prepared
    train, out = cleaned(parts.train, data.clean)
    counts = ", ".join(f"{rows} {name.replace('_', ' ')}" for name, rows in out.items())
    progress.say(f"left out of {len(parts.train)} training examples: {counts}")
    if not train:
        raise KilotuneError(
            f"nothing would be left to learn from: {counts} of {len(parts.train)}",
            where="data.clean",
            fix="Clean less, or see what kilotune check says of the file",
        )
    return replace(prepared, parts=replace(parts, train=train))


def _with_epochs(recipe: Recipe, examples: int) -> Recipe:
    """The recipe with as many epochs as its `examples` to learn from need, where that is open."""
    if recipe.tune.epochs != "auto":
        return recipe
    steps = math.ceil(examples / recipe.tune.batch_size)
    epochs = min(max(round(STEPS / steps), EPOCHS[0]), EPOCHS[1])
    return recipe.with_settings({"tune.epochs": epochs})


def _settled(recipe: Recipe, files: Files) -> Recipe:
    """The recipe with what is left to the data: columns, its task, and the metric to stop by.

    So that a resumed or repeated run does the same, and new rows are read alike.
    """
    data, task = files.train, files.train.task
    metric: str = recipe.tune.stopping.metric
    metrics = TASKS[task]
    unchecked = files.validation is None and recipe.data.validation_fraction == 0
    if metric == "auto":
        metric = "none" if unchecked else metrics.graded
    if metric not in (metrics.exact, metrics.graded, "loss", "none"):
        raise KilotuneError(
            f"the task '{task}' has no metric '{metric}'",
            where="tune.stopping.metric",
            fix=f"Choose {metrics.exact}, {metrics.graded}, loss or none",
        )
    if unchecked and metric != "none":
        raise KilotuneError(
            "there is no validation part to stop by",
            where="tune.stopping.metric",
            fix="Set it to none, or data.validation_fraction above 0",
        )
    settled: dict[str, object] = {"tune.stopping.metric": metric, "data.task": task}
    if data.chosen:
        settled["data.columns"] = {**recipe.data.columns, **data.chosen}
    return recipe.with_settings(settled)
