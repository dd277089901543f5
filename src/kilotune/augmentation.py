"""Augmentation of a run's training part, and of a file; models are loaded only when asked for."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilotune.augment.epochs import augment_epochs
from kilotune.augment.filters import Judges, LabelScores, Nearness
from kilotune.augment.image import CHANGES, Bounds, contact_sheet
from kilotune.augment.models import Guesser, Translator, Writer
from kilotune.augment.plan import Augmented, augment
from kilotune.data.claims import claimed
from kilotune.data.convert import rows_of, usual_format
from kilotune.data.example import Example
from kilotune.data.finding import Finding
from kilotune.data.formulas import formulas
from kilotune.data.writers import table_bytes, write_atomically, write_together
from kilotune.errors import KilotuneError
from kilotune.experiments import record
from kilotune.experiments.record import RunFolder
from kilotune.preparation import Prepared, prepare
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe

if TYPE_CHECKING:
    from kilotune.models.load import Model
    from kilotune.render.template import ChatTemplate

# The columns that say where a row of a written file is from.
SHOWN = 6  # examples on a contact sheet
ROW, OPERATION, PARENT = "source_row", "operation", "parent"


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_augmented` wrote: the file, its counts, and the parts that were split off.

    `findings` are about the texts that were made.
    """

    out: Path
    originals: int
    augmented: Augmented
    parts: dict[str, Path]
    findings: tuple[Finding, ...] = ()


class OwnModels:
    """The recipe's own model as `augment.models.Models`, loaded once, when first asked for."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self.recipe = recipe
        self.progress = progress

    @cached_property
    def loaded(self) -> tuple["Model", "ChatTemplate"]:
        """The base model and its chat template. Raises KilotuneError where there is none."""
        from kilotune.models.load import compute_dtype, load_model, locate
        from kilotune.preview import load_template

        settings = self.recipe.model
        source = locate(settings)
        template = load_template(source, settings)
        return load_model(source, settings, compute_dtype(settings.precision)), template

    def writer(self) -> Writer:
        """The base model, writing freely."""
        from kilotune.generate.writing import ChatWriter

        return ChatWriter(self.recipe.model.name, *self.loaded, self.progress)

    def guesser(self) -> Guesser:
        """The masked language model that is named, else the base model."""
        from kilotune.generate.writing import CausalGuesser, load_masked

        if self.recipe.augment.masked is not None:
            return load_masked(self.recipe.augment.masked)
        model, template = self.loaded
        return CausalGuesser(model, template.tokenizer)

    def translator(self, name: str, seed: int) -> Translator:
        """Sequence-to-sequence models as one pivot."""
        from kilotune.generate.translation import seq2seq

        return seq2seq(name, seed)

    def judges(self, prepared: Prepared) -> Judges:
        """What the recipe's filters ask."""
        scored = self.recipe.augment.filters.label_score is not None
        return Judges(self.label_scores(prepared) if scored else None, self.nearness())

    def nearness(self) -> Nearness | None:
        """How near texts are in meaning by the encoder that is named, if one is."""
        if self.recipe.augment.embedding is None:
            return None
        from kilotune.generate.embedding import load_nearness

        return load_nearness(self.recipe.augment.embedding)

    def label_scores(self, prepared: Prepared) -> LabelScores:
        """How likely the base model finds each of the run's labels."""

        def scores(examples: Sequence[Example]) -> list[dict[str, float]]:
            from kilotune.generate.decode import generation_config
            from kilotune.models.load import stop_ids
            from kilotune.opening import answer_room_of, open_prompting

            model, template = self.loaded
            generation = generation_config(
                self.recipe.decoding,
                answer_tokens=answer_room_of(prepared, template),
                stop_ids=stop_ids(model, template.stop_id),
                pad_id=template.tokenizer.pad_token_id,
            )
            asking = open_prompting(
                model, template, prepared.wording, generation, self.recipe, None
            )
            title = "judging labels"
            found = asking.scores(model, examples, prepared.labels, self.progress, title)
            return [dict(zip(prepared.labels, s.probabilities, strict=True)) for s in found]

        return scores


def augmented(prepared: Prepared, progress: Progress) -> tuple[Prepared, Augmented | None]:
    """The run's data with new examples in the training part, if its recipe asks for any.

    Made before the first epoch from the training part alone, for all epochs or, with
    `augment.fresh`, for each one; nothing of validation and test, or nearly as in them, is let in.
    """
    recipe, parts = prepared.recipe, prepared.parts
    if not recipe.augment.operations:
        return prepared, None
    progress.stage("Augmenting the training part")
    models = OwnModels(recipe, progress)
    make = augment
    if recipe.augment.fresh:
        make = partial(augment_epochs, epochs=ceil(recipe.tune.epochs))
    added = make(
        parts.train,
        (*parts.validation, *parts.test),
        recipe.augment,
        seed=recipe.seed,
        progress=progress,
        judges=models.judges(prepared),
        models=models,
    )
    for line in added.lines():
        progress.say(line)
    train = (*parts.train, *added.examples)
    more = f"{len(added.examples)} made of them, fixed"
    if added.epochs:
        more = f"{len(added.examples) // added.epochs} others in each of {added.epochs} epochs"
    progress.say(f"{len(parts.train)} examples and {more}")
    return replace(prepared, parts=replace(parts, train=train)), added


def write_record(folder: RunFolder, added: Augmented | None) -> None:
    """Write `augmentation.json`: the counts, and each new example with its parent."""
    if added is not None:
        folder.write_json(record.AUGMENTATION, as_document(added))


def check_record(folder: RunFolder, added: Augmented | None) -> None:
    """Raise KilotuneError where a run that goes on would go on with other examples."""
    if added is None:
        return
    if folder.read_json(record.AUGMENTATION)["fingerprint"] != _fingerprint(added.examples):
        raise KilotuneError(
            "augmentation made other examples than when the run began",
            where=str(folder.path),
            fix="Restore the dictionaries and models it used, or start a new run",
        )


def as_document(added: Augmented) -> dict[str, Any]:
    """Counts by operation and, for each new example, what it was made of.

    Where each epoch has its own, the counts are those of all epochs together.
    """
    when = "once, before the first epoch"
    if added.epochs:
        when = f"anew for each of {added.epochs} epochs, before the first"
    return {
        "applied": f"{when}, to the training part alone",
        "fingerprint": _fingerprint(added.examples),
        "counts": {name: asdict(count) for name, count in added.counts.items()},
        "examples": [
            {
                "id": e.id,
                PARENT: e.origin.parent,
                OPERATION: e.origin.operation,
                **({"epoch": e.origin.epoch} if added.epochs else {}),
                "text": e.text,
            }
            for e in added.examples
        ],
    }


def write_augmented(recipe: Recipe, out: Path, progress: Progress) -> Written:
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
    return Written(out, len(prepared.parts.train), added, beside, tuple(found))


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


def _fingerprint(examples: Sequence[Example]) -> str:
    told = hashlib.sha256(record.fingerprint(examples).encode())
    return told.hexdigest()
