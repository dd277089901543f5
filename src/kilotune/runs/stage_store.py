"""The tunings of a self-training, each kept as a small file, so that a stopped one goes on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kilotune.data.files.writers import write_atomically
from kilotune.evaluation.confidence import Guess
from kilotune.recipe.difference import settings_affecting
from kilotune.recipe.schema import Recipe
from kilotune.runs.cost import Cost
from kilotune.runs.schema_version import Document
from kilotune.runs.trials import kept, relevant_settings


@dataclass(frozen=True, slots=True)
class Stage:
    """One tuning: its round, of which 0 is without pseudo-labels, its fold and its seed.

    `longer` is the control of a round: without pseudo-labels, in as many steps as with them.
    """

    round: int
    fold: int
    seed: int
    longer: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the model of one stage said.

    `scores` and `predictions` are of the generated answers to what the fold holds out, by id;
    `held_out` and `unlabeled` are guesses with their confidence, where the next round needs them.
    `added` examples were tuned on besides the fold's own, in so many `steps`.
    """

    scores: Mapping[str, float]
    predictions: Mapping[str, str]
    held_out: Mapping[str, Guess]
    unlabeled: Mapping[str, Guess]
    added: int
    steps: int
    cost: Cost


class StageDocument(Document):
    """A finished stage; `key` tells it from those of other examples and settings."""

    SPREAD = "told"

    key: str
    told: Told


class StageStore:
    """The finished stages, a file each; nothing of an unfinished one."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        # And not what is taken of the guesses.
        self._about = [relevant_settings(recipe), settings_affecting(recipe, {"guesses"})]
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, stage: Stage, made_of: str) -> Told | None:
        """The stage, if it is there of the same examples, of which `made_of` is a fingerprint.

        Raises KilotuneError where its file is damaged.
        """
        found = kept(self._path(stage), StageDocument, "tuning")
        return found.told if found and found.key == self._key(made_of) else None

    def keep(self, stage: Stage, made_of: str, told: Told) -> None:
        """Write a finished stage, whole or not at all."""
        document = StageDocument(key=self._key(made_of), told=told)
        write_atomically(self._path(stage), document.text(indent=None) + "\n")

    def _path(self, stage: Stage) -> Path:
        name = f"round{stage.round}-fold{stage.fold}-seed{stage.seed}"
        return self.folder / f"{name}{'-longer' if stage.longer else ''}.json"

    def _key(self, made_of: str) -> str:
        content = json.dumps([*self._about, made_of], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:20]
