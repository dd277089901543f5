"""Augmented examples as a file: the training part with what is made of it, and a contact sheet."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kilotune.augmentation.image import CHANGES, Bounds, contact_sheet
from kilotune.augmentation.policy import Augmented
from kilotune.data.conversion import rows_of, usual_format
from kilotune.data.example import Example
from kilotune.data.files.claims import claimed
from kilotune.data.files.formulas import formulas
from kilotune.data.files.writers import table_bytes, write_atomically, write_together
from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.session.training_augmentation import OPERATION, PARENT, ROW, augmented

SHOWN = 6  # examples on a contact sheet


@dataclass(frozen=True, slots=True)
class AugmentedFile:
    """What `augment` wrote: the file, its counts, and the parts that were split off.

    `findings` are about the texts that were made.
    """

    out: Path
    originals: int
    augmented: Augmented
    parts: dict[str, Path]
    findings: tuple[Finding, ...] = ()


def augment(recipe: Recipe, out: Path, progress: Progress | None = None) -> AugmentedFile:
    """Write the training part of the recipe's data and what is made of it to `out`.

    Validation and test, where they are split off here, go to files beside it, so that they stay
    held out. Nothing is overwritten. Raises KilotuneError for unusable input.
    """
    if not recipe.augment.operations:
        raise KilotuneError("no operation is named", fix="Name one or more: --op synonym --op swap")
    if recipe.augment.fresh:
        raise KilotuneError(
            "a file has the same examples for every epoch",
            where="augment.fresh",
            fix="Set it to false here, or leave it to kilotune run",
        )
    beside = {name: _beside(out, name) for name in ("validation", "test")}
    given = {"validation": recipe.data.validation, "test": recipe.data.test}
    beside = {name: path for name, path in beside.items() if given[name] is None}
    progress = progress or Silent()
    with claimed(out, *beside.values()):
        prepared = prepare(recipe, progress)
        more, added = augmented(prepared, progress)
        assert added is not None  # there are operations
        form, parts = usual_format(prepared.format), prepared.parts.named()
        files = {
            path: _table(parts[name], form, path, progress, origins=False)
            for name, path in beside.items()
        }
        files[out] = _table(more.parts.train, form, out, progress, origins=True)
        write_together(files)  # the training part last: where it is, nothing is missing
    found = _formulas(out, prepared.parts.train, added.examples)
    for finding in found:
        progress.say(f"{finding.severity}: {finding}")
    return AugmentedFile(out, len(prepared.parts.train), added, beside, tuple(found))


def _formulas(out: Path, own: Sequence[Example], made: Sequence[Example]) -> list[Finding]:
    """A note on texts that were made and are formulas in `out`; the user's own are not meant."""
    known = {message.text for example in own for message in example.messages}
    new = ((e.id, m.text) for e in made for m in e.messages if m.text not in known)
    return formulas(out, new)


def write_sheet(recipe: Recipe, path: Path, progress: Progress) -> list[str]:
    """Write a picture of what the recipe's operations make of some images. Returns their ids.

    Without operations all of images but `flip` are shown. Raises KilotuneError over an old file,
    and where there are no images.
    """
    if path.suffix.lower() != ".png":
        raise KilotuneError("not a name of a PNG file", where=str(path), fix="End it in .png")
    if path.exists():
        raise KilotuneError(
            "the file exists and is left as it is", where=str(path), fix="Choose another name"
        )
    named = [how.op for how in recipe.augment.operations if how.op in CHANGES]
    train = prepare(recipe, progress).parts.train
    shown = [example for example in train if example.images][:SHOWN]
    if not shown:
        raise KilotuneError(
            "there are no images to preview", where=str(recipe.data.train), fix="Use -o OUT instead"
        )
    strength = next((h.strength for h in recipe.augment.operations if h.op in CHANGES), (0.3, 1.0))
    bounds = Bounds(*strength, recipe.augment.filters.image_similarity)
    names = named or [name for name in CHANGES if name != "flip"]
    file = io.BytesIO()
    contact_sheet(shown, names, bounds, recipe.seed).save(file, "PNG")
    write_atomically(path, file.getvalue())
    return [example.id for example in shown]


def _table(
    examples: Sequence[Example], form: str, out: Path, progress: Progress, *, origins: bool
) -> bytes:
    rows = rows_of(examples, form, out, progress, str(out))
    if origins:
        rows = [
            {**row, ROW: e.origin.row, OPERATION: e.origin.operation, PARENT: e.origin.parent}
            for row, e in zip(rows, examples, strict=True)
        ]
    names = list(dict.fromkeys(column for row in rows for column in row))
    return table_bytes(out, names, rows)


def _beside(out: Path, part: str) -> Path:
    stem, dot, endings = out.name.partition(".")
    return out.with_name(f"{stem}.{part}{dot}{endings}")
