"""Trials: one training on one fold with one seed, each kept as a small file of its own."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kilotune.data.example import Task
from kilotune.data.files.writers import Number, write_atomically
from kilotune.errors import KilotuneError
from kilotune.recipe.difference import effects_of, settings_affecting
from kilotune.recipe.schema import Effect, Recipe
from kilotune.runs.cost import Cost
from kilotune.runs.schema_version import Document, DocumentFaultError, NewerDocumentError, too_new

# What a trial is done by: how texts are put and learnt from, on data that were read before.
FACTORS: set[Effect] = {"resource", "answers", "method", "steps", "rounding"}
# Settings that trials of earlier versions did not know; they say nothing by default.
LATER = frozenset({"data.split", "data.keep", "data.ignore", "data.images"})
# Of a run's final model alone, and what units say.
OF_RUNS = frozenset({"tune.refit", "seed"})
# What decides its answers; of data and model an experiment knows digests.
DECIDING: set[Effect] = {*FACTORS, "run"}


@dataclass(frozen=True, slots=True)
class Unit:
    """One fold and one seed: what every candidate is tried on."""

    fold: int
    seed: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides which values make sense: the task, the model's layers and linear names, the
    labels, where they are closed, and the ways of cleaning that leave anything out.
    """

    task: Task
    layers: int
    linear: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cleanings: tuple[str, ...] = ()


D = TypeVar("D", bound=Document)

# A trial that is asked for.
Wanted = tuple[Recipe, Unit]


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one training.

    `scores` are those of the fold's held-out examples by id, in [0, 1]; `training` those of a
    sample of the examples trained on. `losses` has one value a step, `validation_losses` one an
    epoch, or none if nobody watched. `overhead` are the seconds of `cost` that neither steps nor
    answers took.
    """

    unit: Unit
    scores: Mapping[str, float]
    predictions: Mapping[str, str]
    training: Mapping[str, float]
    losses: tuple[Number, ...]
    validation_losses: tuple[Number, ...]
    cost: Cost
    overhead: float = 0.0


class TrialDocument(Document):
    """A finished trial with the settings that decided it."""

    SPREAD = "trial"

    settings: dict[str, Any]
    trial: Trial


class TrialStore:
    """The finished trials of an experiment, a file each; nothing of an unfinished one."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """`fingerprint` is of the data, and of the model where nothing else binds them."""
        self.folder, self.fingerprint = folder, fingerprint
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, recipe: Recipe, unit: Unit) -> Trial | None:
        """The trial, if it is finished. Raises KilotuneError where its file is damaged."""
        found = kept(self._path(recipe, unit), TrialDocument, "trial")
        return found.trial if found else None

    def keep(self, recipe: Recipe, trial: Trial) -> None:
        """Write a finished trial, whole or not at all."""
        document = TrialDocument(settings=relevant_settings(recipe), trial=trial)
        write_atomically(self._path(recipe, trial.unit), document.text() + "\n")

    def _path(self, recipe: Recipe, unit: Unit) -> Path:
        content = [relevant_settings(recipe), unit.fold, unit.seed, self.fingerprint]
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
        return self.folder / f"{key}.json"


def kept(path: Path, kind: type[D], what: str) -> D | None:
    """The document in the file, if there is one.

    Raises KilotuneError where the file of the `what` is damaged, or of a newer kilotune.
    """
    if not path.exists():
        return None
    try:
        return kind.parse(path.read_bytes())
    except NewerDocumentError as error:
        raise too_new(f"{path.parent.name}/{path.name}", path.parent.parent, error) from error
    except DocumentFaultError as error:
        raise KilotuneError(
            f"the record of a {what} is damaged ({error})",
            where=str(path),
            fix=f"Delete it, and the {what} is done again",
        ) from error


def heeded(setting: str) -> bool:
    """Whether another value of `setting` makes another trial; of a part, as `decoding`, whether
    one of all its settings does.
    """
    effects = effects_of(setting)
    return effects <= DECIDING and bool(effects & FACTORS)


def relevant_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what a trial answers; its seed is the unit's.

    Those that came later count where they say something: trials of before are found again.
    """
    found = settings_affecting(recipe, DECIDING)
    unsaid = {name for name in LATER if not found.get(name)}
    return {name: value for name, value in found.items() if name not in OF_RUNS | unsaid}
