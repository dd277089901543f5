"""The data of a run: read, checked and split. Needs no model and no torch."""

from dataclasses import dataclass
from pathlib import Path

from kilotune.data.checks import (
    check_examples,
    check_leakage,
    check_rows,
    check_split,
    check_unseen_labels,
)
from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.normalise import load_dataset
from kilotune.data.split import Split, split_examples
from kilotune.errors import KilotuneError
from kilotune.experiments.record import fingerprint
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.render.wording import Wording, wording

Files = tuple[list[Example], list[Example] | None, list[Example] | None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of a run before its model is loaded."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    parts: Split
    labels: tuple[str, ...]
    wording: Wording
    fingerprint: str

    def record(self) -> dict[str, object]:
        """What `data.json` holds."""
        return {
            "fingerprint": self.fingerprint,
            "labels": self.labels,
            "wording": self.wording,
            "split": self.parts.ids(),
        }


def prepare(recipe: Recipe, progress: Progress) -> Prepared:
    """Read, check and split: everything that needs no model."""
    progress.stage("Reading and checking the data")
    recipe = _with_absolute_paths(recipe)
    files = read(recipe)
    findings = check(recipe, *files)
    parts = split(recipe, *files)
    findings += check_split(parts.named())
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")
    labels = tuple(sorted({example.label for example in files[0] if example.label}))
    words = wording(recipe.data.system, recipe.data.question, labels)
    every = (*parts.train, *parts.validation, *parts.test)
    sizes = ", ".join(f"{len(ids)} {name}" for name, ids in parts.ids().items())
    progress.say(f"{len(every)} examples, {len(labels)} labels: {sizes} (held out)")
    return Prepared(recipe, tuple(findings), parts, labels, words, fingerprint(every))


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

    def examples(path: Path, source: str) -> list[Example]:
        return list(load_dataset(path, text=data.text, label=data.label, source=source).examples)

    return (
        examples(data.train, "data"),
        examples(data.validation, "validation") if data.validation else None,
        examples(data.test, "test") if data.test else None,
    )


def check(
    recipe: Recipe,
    examples: list[Example],
    validation: list[Example] | None,
    test: list[Example] | None,
) -> list[Finding]:
    """Everything that is wrong with the data. Raises KilotuneError on errors, all together."""
    task: Task = "classify" if recipe.data.task == "auto" else recipe.data.task
    findings = check_examples(examples, task)
    stop_on_errors(findings, str(recipe.data.train))
    given = (
        ("validation", validation, recipe.data.validation),
        ("test", test, recipe.data.test),
    )
    for name, part, path in given:
        if part is None:
            continue
        found = [*check_rows(part, task), *check_unseen_labels(examples, part, name)]
        stop_on_errors(found, str(path))
        findings += [*found, *check_leakage(examples, part, name)]
    if validation and test:
        findings += check_leakage(validation, test, "test", "validation")
    return findings


def split(
    recipe: Recipe,
    examples: list[Example],
    validation: list[Example] | None,
    test: list[Example] | None,
) -> Split:
    """Train, validation and test by the recipe; given parts stay as they are."""
    return split_examples(
        examples,
        validation=validation,
        test=test,
        validation_fraction=recipe.data.validation_fraction,
        test_fraction=recipe.data.test_fraction,
        seed=recipe.seed,
    )


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
