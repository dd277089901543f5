"""The data of a run: read, checked and split. Needs no model and no torch."""

from dataclasses import dataclass
from pathlib import Path

from kilotune.data.checks import check_examples, check_leakage, check_unseen_labels
from kilotune.data.example import Example
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.normalise import load_dataset
from kilotune.data.split import Split, split_examples
from kilotune.errors import KilotuneError
from kilotune.experiments.record import fingerprint
from kilotune.progress import Progress
from kilotune.recipe.schema import TEMPLATES, Recipe
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
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")
    labels = tuple(sorted({example.label for example in files[0] if example.label}))
    words = wording(recipe.data.system, recipe.data.question, labels)
    parts = split(recipe, *files)
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
    findings = check_examples(examples)
    stop_on_errors(findings, str(recipe.data.train))
    given = (
        ("validation", validation, recipe.data.validation),
        ("test", test, recipe.data.test),
    )
    for name, part, path in given:
        if part is None:
            continue
        found = [f for f in check_examples(part) if f.code in {"empty-text", "missing-label"}]
        found += check_unseen_labels(examples, part, name)
        stop_on_errors(found, str(path))
        findings += check_leakage(examples, part, name)
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
    if model.chat_template not in TEMPLATES:
        file = str(Path(model.chat_template).expanduser().absolute())
        model = model.model_copy(update={"chat_template": file})
    return recipe.model_copy(update={"data": data.model_copy(update=paths), "model": model})
