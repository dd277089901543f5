"""The hidden-state cache: what enters the lowest trained layer, computed once for each rendering.

Layers that are frozen and carry no adapters give the same states in every epoch, fold and trial.
They are kept in the user's cache folder, and the training starts from them.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.lower import bypassed, first_trained_layer, identity
from kilotune.models.pretrained import Model
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import Eyes
from kilotune.progress import Progress
from kilotune.recipe.schema import TuneSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.training.state_check import check, takes_packs
from kilotune.training.state_computer import StateComputer
from kilotune.training.state_store import StateFile, StateStore, key_of, size_text
from kilotune.training.tuning_result import CacheUse


class Activations:
    """The states that enter layer `below`, for every rendering of a run."""

    def __init__(self, below: int, files: Sequence[StateFile]) -> None:
        self.below = below
        self._file = {name: file for file in files for name in file.names}

    def states(self, rendering: Rendering) -> torch.Tensor:
        """Of one rendering, (length, width): pages of a mapped file."""
        name = key_of(rendering)
        return self._file[name].states(name)

    def bypassed(self, model: Model) -> AbstractContextManager[None]:
        """Inside the `with`, `model` starts at layer `below`; outside it is complete."""
        return bypassed(model, self.below)


def open_activations(
    tunable: Tunable,
    renderings: Sequence[Rendering],
    settings: TuneSettings,
    *,
    pad_id: int,
    autocast: torch.dtype | None,
    progress: Progress,
    eyes: Eyes | None = None,
    checked: CacheUse | None = None,
) -> tuple[Activations | None, CacheUse]:
    """The cached states for `renderings`, those that are missing computed now; and the record.

    Checked against the plain forward on the first renderings, unless it is known from `checked`
    what came of that for the same model and method. `autocast` is the type that float32
    weights are multiplied in, if not their own. Where the cache cannot be used the first is None
    and the record says why. Raises KilotuneError for that with `tune.cache: always`, and for a
    streamed model, which cannot do without.
    """
    opened: tuple[Activations, CacheUse] | str = "tune.cache is never"
    below = 0
    if settings.cache != "never":
        below = first_trained_layer(tunable.model)
        computer = StateComputer(tunable.model, below, pad_id, autocast, eyes)
        opened = _open(tunable, renderings, settings, computer, progress, checked)
    if not isinstance(opened, str):
        return opened
    if settings.cache == "always" or streamed_layers(tunable.model):
        raise KilotuneError(
            f"the hidden-state cache cannot be used: {opened}",
            where="tune.cache",
            fix="Make room as it says, or set tune.cache=auto and tune.streaming=never",
        )
    # That all layers are trained is what the recipe asks for, and not worth a line.
    if below:
        progress.say(f"Without the hidden-state cache: {opened}")
    return None, CacheUse(False, opened)


def _open(
    tunable: Tunable,
    renderings: Sequence[Rendering],
    settings: TuneSettings,
    computer: StateComputer,
    progress: Progress,
    checked: CacheUse | None,
) -> tuple[Activations, CacheUse] | str:
    """The states and the record, or why the cache is not used."""
    probed = computer.probe(min(renderings, key=lambda r: len(r.token_ids)))
    if isinstance(probed, str):
        return probed
    below, eyes = computer.below, computer.eyes
    image_settings = eyes.vision.settings if eyes else ""
    key = identity(computer.model, below, tunable.digests, computer.autocast, image_settings)
    store = StateStore(key, *probed, int(settings.cache_limit_gb * 1e9), progress)
    # Some models add features of images behind the lower layers: they are looked at first.
    first = sorted(renderings, key=lambda r: not r.images)[:2]
    packs = takes_packs(computer, first)
    wanted = {key_of(r): r for r in renderings}
    try:
        filled = _fill(store, wanted, computer, packs=packs)
    except OSError as error:  # a folder that may not be written, a disk that is full
        return str(error)
    if isinstance(filled, str):
        return filled
    activations, computed = filled
    known = (checked.states, checked.restart) if checked and checked.used else None
    found = known or check(tunable, computer, first, activations.states)
    if isinstance(found, str):
        return found
    reason = f"layers under {below} are frozen; checked on the first examples"
    streamed, size = len(streamed_layers(computer.model)), store.size(wanted.values())
    return activations, CacheUse(True, reason, below, streamed, size, computed, *found)


def _fill(
    store: StateStore, wanted: Mapping[str, Rendering], computer: StateComputer, *, packs: bool
) -> tuple[Activations, int] | str:
    """The states of `wanted`, and how many had to be computed for them; or why they are not had."""
    size = store.size(wanted.values())
    if size > store.limit:
        return (
            f"the states would take {size_text(size)}, and tune.cache_limit_gb allows "
            f"{size_text(store.limit)}"
        )
    with store.locked():
        files = store.open(wanted)
        known = frozenset().union(*(file.names for file in files))
        missing = [r for key, r in wanted.items() if key not in known]
        store.progress.say(
            f"Hidden states that enter layer {computer.below}: {size_text(size)} for "
            f"{len(wanted)} texts, {len(missing)} of them to compute, in {store.folder}"
        )
        if missing:
            if refused := store.make_room(store.size(missing), files):
                return refused
            with store.writer(missing) as writer:
                computer.fill(writer, missing, store.progress, packs=packs)
                files.append(writer.finish())
    return Activations(computer.below, files), len(missing)
