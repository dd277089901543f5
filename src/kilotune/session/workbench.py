"""Trials on a model that is loaded once: fresh adapters each, texts and checks shared."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kilotune.augmentation.epochs import rounds_of
from kilotune.data.cleaning import CLEANINGS
from kilotune.data.example import Example
from kilotune.data.folds import Fold
from kilotune.data.split import Split
from kilotune.errors import KilotuneError, some
from kilotune.evaluation.judgement import scores_by_id
from kilotune.generation.kept import KeptStates
from kilotune.models.freeze import digests_of
from kilotune.models.lora import linear_names
from kilotune.models.pretrained import compute_dtype, layer_count, weight_dtype
from kilotune.models.source import Source
from kilotune.preparation.prepare import Prepared, clean
from kilotune.progress import Progress, Silent
from kilotune.recipe.difference import settings_affecting
from kilotune.recipe.schema import Effect, Recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.rendering.wording import wording
from kilotune.runs import trackers
from kilotune.runs.cost import Cost
from kilotune.runs.trials import Facts, Trial, Unit
from kilotune.session.fine_tuning import render, tuning_job
from kilotune.session.loading import Loaded, begin_session, load
from kilotune.session.model_session import Session
from kilotune.session.training_augmentation import augmented
from kilotune.training.tuning import Checked, Hooks, tune
from kilotune.training.tuning_result import Tuning

# What the checks depend on beside the texts: steps of other sizes or numbers take the same path.
CHECKED: set[Effect] = {"method", "speed", "rounding"}


class Workbench:
    """The model in memory, and what one trial leaves for the next: nothing but what is the same."""

    def __init__(
        self,
        prepared: Prepared,
        source: Source,
        folds: Sequence[Fold],
        progress: Progress,
        loaded: Loaded | None = None,
    ) -> None:
        """`prepared` is of the data without a validation part.

        The model is loaded when it is needed, unless that of the recipe is `loaded` already.
        """
        self.prepared, self.source, self.folds, self.progress = prepared, source, folds, progress
        self._loaded = loaded
        self._kind: object = _kind(prepared.recipe) if loaded else None
        self._digests = digests_of(loaded.model) if loaded else {}
        self._renderings: dict[str, dict[str, Rendering]] = {}
        self._checked: dict[str, Checked] = {}
        self._kept: KeptStates | None = None

    def run(self, recipe: Recipe, unit: Unit, sample: int, *, watched: bool = True) -> Trial:
        """Train by `recipe` on a fold with a seed, and answer what the fold holds out.

        `sample` of the training examples are asked too. Where it is not `watched`, the trial has
        no validation losses, and takes less time for it. The base weights are afterwards proved to
        be as they were. Raises Interrupted after Ctrl-C.
        """
        began = time.perf_counter()
        fold = self.folds[unit.fold]
        with self.tuned(recipe, fold, unit.seed, watched=watched) as (session, tuning):
            ready = time.perf_counter()
            model, prepared = session.tunable.model, session.prepared
            kept = self.kept(session)
            said = session.answer(model, fold.validation, "validating", kept=kept)
            train = [e for e in prepared.parts.train if not e.origin.parent]
            asked = random.Random(unit.seed).sample(train, min(sample, len(train)))
            known = session.answer(model, asked, "training sample", kept=kept)
            answering = time.perf_counter() - ready
        seconds = time.perf_counter() - began
        return Trial(
            unit=unit,
            scores=scores_by_id(prepared.task, fold.validation, said.predictions),
            predictions={e.id: p for e, p in zip(fold.validation, said.predictions, strict=True)},
            training=scores_by_id(prepared.task, asked, known.predictions),
            losses=tuple(line["loss"] for line in tuning.history if "loss" in line),
            validation_losses=tuple(x["eval_loss"] for x in tuning.history if "eval_loss" in x),
            cost=Cost(round(seconds, 2), tuning.tokens, session.spent.generated),
            overhead=round(seconds - _stepping(tuning) - answering, 2),
        )

    @contextmanager
    def tuned(
        self,
        recipe: Recipe,
        fold: Fold,
        seed: int,
        added: Sequence[Example] = (),
        *,
        watched: bool = False,
    ) -> Iterator[tuple[Session, Tuning]]:
        """A session of the model tuned on a fold's training examples and those `added` to them.

        What augmentation makes, it makes of the fold's own. Where tuning is `watched`, what the
        fold holds out is its validation part, whose loss each epoch measures. The adapters are gone
        afterwards, and the base weights are proved to be as they were. Raises Interrupted after
        Ctrl-C.
        """
        prepared = self._of(recipe, fold, seed)
        train = (*prepared.parts.train, *added)
        prepared = replace(prepared, parts=replace(prepared.parts, train=train))
        session = begin_session(self._model(prepared), prepared, Silent(), self._digests)
        try:
            yield session, self._tune(session, watched=watched)
        finally:
            self._put_back(session)

    def kept(self, session: Session) -> KeptStates | None:
        """What closed labels' scores may start from: the states of trials of the same layers.

        None where labels are not closed or no layer stays as it is.
        """
        if session.prepared.task != "classify":
            return None
        found = KeptStates.of(session.tunable.model)
        if found is None or self._kept is None or found.below != self._kept.below:
            self._kept = found  # those of other layers are let go
        return self._kept

    def facts(self) -> Facts:
        """What the model has to try."""
        model = self._model(self.prepared).model
        prepared = self.prepared
        linear = tuple(linear_names(model))
        every = (*self.folds[0].train, *self.folds[0].validation)
        cleanings = tuple(name for name, rows in CLEANINGS.items() if rows(every))
        return Facts(prepared.task, layer_count(model), linear, prepared.labels, cleanings)

    def base_scores(self, recipe: Recipe) -> dict[str, float]:
        """How the model as it came answers every example of the folds."""
        every = [example for fold in self.folds for example in fold.validation]
        prepared = self._of(recipe, self.folds[0], 0)
        session = begin_session(self._model(prepared), prepared, self.progress, self._digests)
        try:
            said = session.base_answer(every).predictions
            return scores_by_id(prepared.task, every, said)
        finally:
            self._put_back(session)

    def _of(self, recipe: Recipe, fold: Fold, seed: int) -> Prepared:
        # Where other trackers write is gone after the trial.
        told = (trackers.MLFLOW,) if trackers.tells(recipe.tune.report_to) else ()
        chosen = recipe.with_settings({"seed": seed, "tune.report_to": told})
        labels = self.prepared.labels
        prepared = replace(
            self.prepared,
            recipe=chosen,
            parts=Split(fold.train, fold.validation, ()),
            wording=wording(
                recipe.data.system, recipe.data.question, labels, recipe.data.label_wording
            ),
        )
        return augmented(clean(prepared, Silent()), Silent())[0]

    def _model(self, prepared: Prepared) -> Loaded:
        """The model, loaded anew only where a method needs its weights in another type or place."""
        recipe = prepared.recipe
        kind = _kind(recipe)
        if self._loaded is None or kind != self._kind:
            self._loaded, self._kind = None, kind  # the old one goes before the new one comes
            source = replace(self.source, settings=recipe.model)
            self._loaded = load(prepared, source, self.progress)
            self._digests = digests_of(self._loaded.model)
            self._checked.clear()
            self._kept = None
        return self._loaded

    def _tune(self, session: Session, *, watched: bool) -> Tuning:
        train, validation = self._rendered(session)
        recipe = session.prepared.recipe
        method = f"{settings_affecting(recipe, CHECKED)} {recipe.data.model_dump_json()}"
        with TemporaryDirectory() as scratch:
            held = validation if watched else []
            job = tuning_job(session, train, held, Path(scratch), keep=False)
            hooks = Hooks(progress=session.progress)
            tuning = tune(session.tunable, job, hooks, self._checked.get(method))
        self._checked[method] = Checked(tuning.agreement, tuning.cache)
        return tuning

    def _rendered(self, session: Session) -> tuple[list[Rendering], list[Rendering]]:
        """The fold's texts as token ids; each text is rendered once for all trials that share it.

        What augmentation and pseudo-labels add is another in each fold, and rendered there.
        """
        recipe, parts = session.prepared.recipe, session.prepared.parts
        content = [recipe.data.model_dump_json(exclude={"clean"}), recipe.model.model_dump_json()]
        known = self._renderings.setdefault(json.dumps(content), {})
        if recipe.augment.operations:
            train, validation, _ = render(session)
            return train, validation
        read = [example for example in parts.train if not example.origin.parent]
        new = tuple(e for e in (*read, *parts.validation) if e.id not in known)
        if new:
            known.update({r.example_id: r for r in _render(session, new)})
        made = [example for example in parts.train if example.origin.parent]
        own = _render(session, made) if made else []
        train, validation = ([known[e.id] for e in p] for p in (read, parts.validation))
        return [*train, *own], validation

    def _put_back(self, session: Session) -> None:
        """Take the adapters off; raises KilotuneError where the model is not what it was."""
        assert self._loaded is not None
        model = session.tunable.release()
        self._loaded = replace(self._loaded, model=model)
        now = digests_of(model)
        if now != self._digests:
            changed = [n for n in self._digests if now.get(n) != self._digests[n]]
            raise KilotuneError(
                f"the base model is not as it was before the trial: {some(changed or [*now])}",
                fix="This is a fault of kilotune or of the model's code; please report it",
            )


def _kind(recipe: Recipe) -> object:
    """What tells the models that recipes load apart: place, type, and layers kept on disk."""
    dtype = weight_dtype(recipe.tune, compute_dtype(recipe.model.precision))
    layers = getattr(recipe.tune, "layers", None) if recipe.tune.streaming == "always" else None
    return recipe.model, dtype, layers


def every_epoch(recipe: Recipe) -> Recipe:
    """The recipe without early stopping: a fold has no part to stop by."""
    return recipe.with_settings({"tune.stopping.metric": "none"})


def untold(recipe: Recipe) -> Recipe:
    """The recipe without trackers."""
    return recipe.with_settings({"tune.report_to": ()})


def planned_steps(recipe: Recipe, train: Sequence[Example]) -> int:
    """The optimiser steps that `recipe` takes on `train` if nothing ends them early."""
    each = ceil(len(rounds_of(train)[0]) / recipe.tune.batch_size)
    return ceil(each * recipe.tune.passes)


def in_steps(recipe: Recipe, taken: int, wanted: int) -> Recipe:
    """The recipe with as many epochs as take `wanted` steps, on data of which its own take `taken`.

    To the step, from one epoch up: of less than that it is not known how many a whole one takes.
    """
    if wanted == taken:
        return recipe
    # The last epoch's part was rounded up; and 33 / 1.1 is a little less than 30.
    each = max(1, int(taken / recipe.tune.passes + 1e-9))
    epochs = (wanted - 0.5) / each  # the Trainer rounds up: half a step less is safe from rounding
    tune = recipe.tune.model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"tune": tune})


def as_tuned(recipe: Recipe, train: Sequence[Example], tuning: Tuning) -> Recipe:
    """The recipe that takes the steps behind which its own `tuning` on `train` was best.

    It has nothing to stop by, and tells no tracker.
    """
    wanted = tuning.best_step or tuning.steps
    return in_steps(untold(every_epoch(recipe)), planned_steps(recipe, train), wanted)


def _render(session: Session, examples: Sequence[Example]) -> list[Rendering]:
    parts = Split(tuple(examples), (), ())
    return render(replace(session, prepared=replace(session.prepared, parts=parts)))[0]


def _stepping(tuning: Tuning) -> float:
    """Seconds from the first step of the training to its last, evaluations included."""
    lines: list[dict[str, Any]] = [line for line in tuning.history if "train_runtime" in line]
    return float(lines[-1]["train_runtime"]) if lines else 0.0
