"""Augmentation of a run's training part, and of a file; models are loaded only when asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import ceil
from typing import TYPE_CHECKING

from kilotune.augmentation.epochs import augment_epochs
from kilotune.augmentation.filters import Judges, LabelScores, Nearness
from kilotune.augmentation.model_protocols import Guesser, Translator, Writer
from kilotune.augmentation.policy import Augmented, augment
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.runs import record
from kilotune.runs.outcomes import AugmentationDocument, AugmentedExample
from kilotune.runs.record import RunFolder

if TYPE_CHECKING:
    from kilotune.models.pretrained import Model
    from kilotune.rendering.template import ChatTemplate

# The columns that say where a row of a written file is from.
ROW, OPERATION, PARENT = "source_row", "operation", "parent"


class OwnModels:
    """The recipe's own model as `model_protocols.Models`, loaded once, when first asked for."""

    def __init__(self, recipe: Recipe, progress: Progress) -> None:
        self.recipe = recipe
        self.progress = progress

    @cached_property
    def loaded(self) -> tuple["Model", "ChatTemplate"]:
        """The base model and its chat template. Raises KilotuneError where there is none."""
        from kilotune.models.pretrained import compute_dtype
        from kilotune.models.source import locate
        from kilotune.session.templates import load_template

        settings = self.recipe.model
        source = locate(settings)
        template = load_template(source)
        return source.model(compute_dtype(settings.precision)), template

    def writer(self) -> Writer:
        """The base model, writing freely."""
        from kilotune.generation.writing import ChatWriter

        return ChatWriter(self.recipe.model.name, *self.loaded, self.progress)

    def guesser(self) -> Guesser:
        """The masked language model that is named, else the base model."""
        from kilotune.generation.writing import CausalGuesser, load_masked

        if self.recipe.augment.masked is not None:
            return load_masked(self.recipe.augment.masked)
        model, template = self.loaded
        return CausalGuesser(model, template.tokenizer)

    def translator(self, name: str, seed: int) -> Translator:
        """Sequence-to-sequence models as one pivot."""
        from kilotune.generation.translation import seq2seq

        return seq2seq(name, seed)

    def judges(self, prepared: Prepared) -> Judges:
        """What the recipe's filters ask."""
        scored = self.recipe.augment.filters.label_score is not None
        return Judges(self.label_scores(prepared) if scored else None, self.nearness())

    def nearness(self) -> Nearness | None:
        """How near texts are in meaning by the encoder that is named, if one is."""
        if self.recipe.augment.embedding is None:
            return None
        from kilotune.generation.embedding import load_nearness

        return load_nearness(self.recipe.augment.embedding)

    def label_scores(self, prepared: Prepared) -> LabelScores:
        """How likely the base model finds each of the run's labels."""

        def scores(examples: Sequence[Example]) -> list[dict[str, float]]:
            from kilotune.generation.decoding import generation_config
            from kilotune.models.pretrained import stop_ids
            from kilotune.session.loading import answer_room_of, open_prompting

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
        make = partial(augment_epochs, epochs=ceil(recipe.tune.passes))
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
        folder.write(as_document(added))


def check_record(folder: RunFolder, added: Augmented | None) -> None:
    """Raise KilotuneError where a run that goes on would go on with other examples."""
    if added is None:
        return
    if folder.read(AugmentationDocument).fingerprint != _fingerprint(added.examples):
        raise KilotuneError(
            "augmentation made other examples than when the run began",
            where=str(folder.path),
            fix="Restore the dictionaries and models it used, or start a new run",
        )


def as_document(added: Augmented) -> AugmentationDocument:
    """Counts by operation and, for each new example, what it was made of.

    Where each epoch has its own, the counts are those of all epochs together.
    """
    when = "once, before the first epoch"
    if added.epochs:
        when = f"anew for each of {added.epochs} epochs, before the first"
    return AugmentationDocument(
        applied=f"{when}, to the training part alone",
        fingerprint=_fingerprint(added.examples),
        counts=dict(added.counts),
        examples=tuple(
            AugmentedExample(
                id=e.id,
                parent=e.origin.parent,
                operation=e.origin.operation,
                epoch=e.origin.epoch if added.epochs else None,
                text=e.text,
            )
            for e in added.examples
        ),
    )


def _fingerprint(examples: Sequence[Example]) -> str:
    told = hashlib.sha256(record.fingerprint(examples).encode())
    return told.hexdigest()
