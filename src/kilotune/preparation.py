"""The data of a run: read, checked and split. Needs no model and no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kilotune.data.checks import check_examples, check_leakage, check_unseen_labels
from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.data.split import Split, split_examples
from kilotune.errors import KilotuneError
from kilotune.evaluate.tasks import TASKS
from kilotune.experiments.record import fingerprint
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.render.wording import Wording, wording


@dataclass(frozen=True, slots=True)
class Files:
    """The labelled file with the task it sets, and validation and test files where given."""

    task: Task
    examples: tuple[Example, ...]
    validation: tuple[Example, ...] | None
    test: tuple[Example, ...] | None


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

    def record(self) -> dict[str, object]:
        """What `data.json` holds."""
        return {
            "fingerprint": self.fingerprint,
            "task": self.task,
            "labels": self.labels,
            "wording": self.wording,
            "split": self.parts.ids(),
        }


def prepare(recipe: Recipe, progress: Progress) -> Prepared:
    """Read, check and split: everything that needs no model."""
    progress.stage("Reading and checking the data")
    recipe = _with_absolute_paths(recipe)
    files = read(recipe)
    recipe = _with_metric(recipe, files.task)
    findings = check(recipe, files)
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")
    labels = tuple(sorted({example.label for example in files.examples if example.label}))
    words = wording(recipe.data.system, recipe.data.question, labels)
    parts = split_examples(
        files.examples,
        validation=files.validation,
        test=files.test,
        validation_fraction=recipe.data.validation_fraction,
        test_fraction=recipe.data.test_fraction,
        seed=recipe.seed,
    )
    every = (*parts.train, *parts.validation, *parts.test)
    sizes = ", ".join(f"{len(ids)} {name}" for name, ids in parts.ids().items())
    what = f"classify, {len(labels)} labels" if labels else files.task
    progress.say(f"{len(every)} examples ({what}): {sizes} (held out)")
    found = tuple(findings)
    return Prepared(recipe, found, parts, files.task, labels, words, fingerprint(every))


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

    def dataset(path: Path, source: str, task: Task | Literal["auto"]) -> Dataset:
        return load_dataset(path, text=data.text, label=data.label, task=task, source=source)

    train = dataset(data.train, "data", data.task)

    def part(path: Path | None, source: str) -> tuple[Example, ...] | None:
        return dataset(path, source, train.task).examples if path else None

    return Files(
        train.task, train.examples, part(data.validation, "validation"), part(data.test, "test")
    )


def check(recipe: Recipe, files: Files) -> list[Finding]:
    """Everything that is wrong with the data. Raises KilotuneError on errors, all together."""
    findings = check_examples(files.examples)
    stop_on_errors(findings, str(recipe.data.train))
    given = (
        ("validation", files.validation, recipe.data.validation),
        ("test", files.test, recipe.data.test),
    )
    for name, part, path in given:
        if part is None:
            continue
        found = [f for f in check_examples(part) if f.code in {"empty-text", "missing-label"}]
        found += check_unseen_labels(files.examples, part, name)
        stop_on_errors(found, str(path))
        findings += check_leakage(files.examples, part, name)
    return findings


def _with_metric(recipe: Recipe, task: Task) -> Recipe:
    """The recipe with the metric that decides when to stop, which `auto` leaves to the task."""
    stopping, metrics = recipe.tune.stopping, TASKS[task]
    if stopping.metric == "auto":
        stopping = stopping.model_copy(update={"metric": metrics.graded})
    if stopping.metric not in (metrics.exact, metrics.graded, "loss"):
        raise KilotuneError(
            f"the task '{task}' has no metric '{stopping.metric}'",
            where="tune.stopping.metric",
            fix=f"Choose {metrics.exact}, {metrics.graded} or loss",
        )
    tune = recipe.tune.model_copy(update={"stopping": stopping})
    return recipe.model_copy(update={"tune": tune})


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that the recipe saved with a run can be run again from any folder."""
    data = recipe.data
    paths = {
        name: path.expanduser().absolute()
        for name in ("train", "validation", "test")
        if (path := getattr(data, name)) is not None
    }
    model = recipe.model
    if Path(model.name).expanduser().is_dir():
        name = str(Path(model.name).expanduser().absolute())
        model = model.model_copy(update={"name": name})
    return recipe.model_copy(update={"data": data.model_copy(update=paths), "model": model})
