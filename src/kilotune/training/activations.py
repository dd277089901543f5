"""The hidden-state cache: what enters the lowest trained layer, computed once for each rendering.

Layers that are frozen and carry no adapters give the same states in every epoch, fold and trial.
They are kept in the user's cache folder, and the training starts from them.
"""

import hashlib
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from kilotune.data.files.claims import held
from kilotune.data.images.pixels import digest
from kilotune.data.packages import cache_folder
from kilotune.errors import KilotuneError, some
from kilotune.models.attention import packing_attention
from kilotune.models.freeze import Tunable
from kilotune.models.lower import (
    active_dropout,
    bypassed,
    entering,
    first_trained_layer,
    identity,
    in_float32,
    run_layers,
)
from kilotune.models.pretrained import Model
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import Eyes
from kilotune.progress import Progress
from kilotune.recipe.schema import TuneSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import Batch, States, collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import lay_out, pack, shared_length, told_apart
from kilotune.training.packing_check import compare
from kilotune.training.statefile import TYPES, StateFile, StateWriter, open_files
from kilotune.training.tuning_result import CacheUse, Difference

FOLDER, FORMAT = "activations", "kilotune hidden states 1"
# Tokens, padding included, that go through the lower layers at once.
TOKEN_BUDGET = 4096
# How far a fast path may be from the plain one; bfloat16 keeps 8 bits, and rounds otherwise in
# packs. In many layers that adds up: states that differ by more must be as near to those in
# float32 as the plain ones are, which two independent roundings are within this factor.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
ROUNDING = 1.25


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


class NotUsedError(Exception):
    """Why the cache is not used."""


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
    streamed = len(streamed_layers(tunable.model))
    try:
        if settings.cache == "never":
            raise NotUsedError("tune.cache is never")
        cache = _Cache(tunable, renderings, settings, pad_id, autocast, progress, eyes)
        try:
            activations, computed = cache.open()
        except OSError as error:  # a folder that may not be written, a disk that is full
            raise NotUsedError(str(error)) from error
        if checked and checked.used:
            states, restart = checked.states, checked.restart
        else:
            states, restart = cache.check(activations)
    except NotUsedError as error:
        if settings.cache == "always" or streamed:
            raise KilotuneError(
                f"the hidden-state cache cannot be used: {error}",
                where="tune.cache",
                fix="Make room as it says, or set tune.cache=auto and tune.streaming=never",
            ) from error
        if settings.cache != "never" and cache_applies(tunable.model):
            progress.say(f"Without the hidden-state cache: {error}")
        return None, CacheUse(False, str(error))
    reason = f"layers under {cache.below} are frozen; checked on the first examples"
    use = CacheUse(
        True, reason, cache.below, streamed, cache.size, computed, states=states, restart=restart
    )
    return activations, use


def cache_applies(model: Model) -> bool:
    """Whether there are layers below the lowest trained one."""
    return first_trained_layer(model) > 0


def key_of(rendering: Rendering) -> str:
    """The name of a rendering's states: a digest of its token ids and of its images' files."""
    made = hashlib.blake2b(array("q", rendering.token_ids).tobytes(), digest_size=16)
    for image in rendering.images:
        made.update(digest(image))
    return made.hexdigest()


class _Cache:
    """One run's way to its states: what is there, what is missing, what it would take."""

    def __init__(
        self,
        tunable: Tunable,
        renderings: Sequence[Rendering],
        settings: TuneSettings,
        pad_id: int,
        autocast: torch.dtype | None,
        progress: Progress,
        eyes: Eyes | None,
    ) -> None:
        self.eyes = eyes
        self.tunable, self.model = tunable, tunable.model
        self.below = first_trained_layer(self.model)
        if not self.below:
            raise NotUsedError("every layer is trained, or something outside the layers")
        if found := active_dropout(self.model, self.below):
            raise NotUsedError(f"there is dropout under layer {self.below}: {some(found, 2)}")
        self.pad_id, self.autocast, self.progress = pad_id, autocast, progress
        self.limit = int(settings.cache_limit_gb * 1e9)
        self.wanted = {key_of(r): r for r in renderings}
        # Some models add features of images behind the lower layers: they are looked at first.
        self.first = sorted(renderings, key=lambda r: not r.images)[:2]
        self.width, self.dtype = self._probe(min(renderings, key=lambda r: len(r.token_ids)))
        self.packed = self._takes_packs()
        self.size = sum(map(self._bytes, self.wanted.values()))
        self.root = cache_folder() / FOLDER
        key = identity(self.model, self.below, tunable.digests, autocast, _lens(eyes))
        self.folder = self.root / key
        self.about = {"format": FORMAT, "key": key}

    def open(self) -> tuple[Activations, int]:
        """The states, and how many renderings had to be computed for them."""
        if self.size > self.limit:
            raise NotUsedError(
                f"the states would take {_gb(self.size)}, and tune.cache_limit_gb allows "
                f"{_gb(self.limit)}"
            )
        # What is cached can tell what the texts were: it is the user's own, as the data are.
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock():
            files, damaged = open_files(self.folder, self.about, self.wanted)
            for path in damaged:
                self.progress.say(f"{path} is damaged: what it held is computed again")
                path.unlink()
            known = frozenset().union(*(file.names for file in files))
            missing = [r for key, r in self.wanted.items() if key not in known]
            self._say(len(missing))
            if missing:
                self._make_room(sum(map(self._bytes, missing)), {file.path for file in files})
                files.append(StateFile(self._fill(missing), self.about))
            for file in files:
                os.utime(file.path)  # the least recently used ones make room first
        return Activations(self.below, files), len(missing)

    def check(self, activations: Activations) -> tuple[float, Difference]:
        """Differences of the stored states, and of the loss and gradient from layer `below` on.

        The loss starts from states of the same batch, where nothing but a mistake can differ;
        the stored ones come from packs or batches of other shapes, which round otherwise. Raises
        NotUsedError beyond TOLERANCE, or ROUNDING.
        """
        plain = collate(self.first, self.pad_id, eyes=self.eyes)
        stored = collate(self.first, self.pad_id, activations.states, self.eyes).hidden_states
        assert stored is not None
        plain = plain.to(self.model.device)
        caught: list[torch.Tensor] = []

        def from_the_start() -> torch.Tensor:
            with entering(self.model, self.below) as entered, self._precision():
                mean = loss.sum(self.model, plain) / plain.labelled_count()
            caught.extend(entered)
            return mean

        def from_the_layer() -> torch.Tensor:
            batch = replace(plain, hidden_states=caught[0])
            with activations.bypassed(self.model), self._precision():
                return loss.sum(self.model, batch) / batch.labelled_count()

        try:
            with activations.bypassed(self.model):  # it tries the output head
                loss = LabelledLoss(self.model)
            restart = compare(self.tunable, from_the_start, from_the_layer)
        except Exception as error:  # what a foreign model's code makes of it, none can foresee
            raise NotUsedError(f"the model cannot start at layer {self.below}: {error}") from error
        for name, value in (("the loss", restart.loss), ("the gradient", restart.gradient)):
            if not value <= self._tolerance:
                raise NotUsedError(
                    f"{name} would differ by {value:.1e} (at most {self._tolerance:g})"
                )
        real = plain.attention_mask.bool().cpu()
        fresh = caught[0].cpu()[real]
        if fault := self._fault(stored[real], fresh, range(self.below)):
            raise NotUsedError(f"stored states {fault}")
        return _relative(stored[real], fresh), restart

    def _probe(self, rendering: Rendering) -> tuple[int, torch.dtype]:
        """Width and type of the states, found on a short rendering."""
        streamed = bool(streamed_layers(self.model))
        try:
            states = self._padded(range(1 if streamed else self.below), [rendering])
        except Exception as error:  # what a foreign model's code makes of it, none can foresee
            raise NotUsedError(f"its lower layers cannot be run alone: {error}") from error
        if not isinstance(states, torch.Tensor) or states.ndim != 3 or states.dtype not in TYPES:
            raise NotUsedError("its layers hand on more than hidden states")
        return int(states.shape[-1]), states.dtype

    def _fill(self, missing: Sequence[Rendering]) -> Path:
        """Compute the states of `missing` and write them as one file.

        A streamed model's layers are read once each, whatever the number of renderings: all of
        them go through a layer before the next one is read, the file holding what is between.
        """
        layers = [layer for _, layer in streamed_layers(self.model)]
        spans = [range(i, i + 1) for i in range(self.below)] if layers else [range(self.below)]
        lengths = {key_of(r): len(r.token_ids) for r in missing}
        batches = list(_packs(missing, self.eyes) if self.packed else _batches(missing))
        with (
            StateWriter(self.folder, lengths, self.width, self.dtype, self.about) as writer,
            self.progress.bar("hidden states", len(spans) * len(missing)) as bar,
        ):
            for span in spans:
                with ExitStack() as stack:
                    for layer in layers[span.start : span.stop]:
                        stack.enter_context(layer.held(self.model.device))
                    for batch in batches:
                        self._advance(writer, span, batch)
                        bar.advance(len(batch))
            return writer.finish()

    def _takes_packs(self) -> bool:
        """Whether packs give the first texts the states that padded batches give them."""
        span = range(1 if streamed_layers(self.model) else self.below)
        padded = self._padded(span, self.first)
        try:
            packed = self._from_pack(span, self.first)
        except Exception:  # as in `_probe`
            return False
        expected = torch.cat([row[-len(own) :] for row, own in zip(padded, packed, strict=True)])
        return not self._fault(torch.cat(packed), expected, span)

    def _fault(self, found: torch.Tensor, plain: torch.Tensor, span: range) -> str:
        """What is wrong with states of the first texts that leave `span`, if anything is.

        Both are (tokens, width), `plain` by the plain forward.
        """
        found, plain = found.cpu(), plain.cpu()
        difference = _relative(found, plain)
        if difference <= self._tolerance:
            return ""
        if not self._coarse:
            return f"would differ by {difference:.1e} (at most {self._tolerance:g})"
        exact = self._in_float32(span)
        ours, theirs = _relative(found, exact), _relative(plain, exact)
        if ours <= ROUNDING * theirs:
            return ""
        return (
            f"would differ by {difference:.1e}, and by {ours:.1e} from those in float32 (plain "
            f"ones by {theirs:.1e})"
        )

    def _in_float32(self, span: range) -> torch.Tensor:
        """What leaves the layers of `span` for the first texts, (tokens, width), in float32.

        A layer at a time, so that a model in bfloat16 needs little more memory.
        """
        batch = collate(self.first, self.pad_id, eyes=self.eyes)
        states = self._run(range(0), batch, precise=True).float()
        for index in span:
            with in_float32(self.model, index):
                given = replace(batch, hidden_states=states)
                states = self._run(range(index, index + 1), given, precise=True)
        return states.cpu()[batch.attention_mask.bool()]

    def _advance(self, writer: StateWriter, span: range, batch: Sequence[Rendering]) -> None:
        """Take the texts of a batch through the layers of `span`, from and to the file."""
        before = (lambda r: writer.read(key_of(r))) if span.start else None
        run = self._from_pack if self.packed else self._padded
        for rendering, row in zip(batch, run(span, batch, before), strict=True):
            writer.write(key_of(rendering), row[-len(rendering.token_ids) :])

    def _padded(
        self, span: range, batch: Sequence[Rendering], states: States | None = None
    ) -> torch.Tensor:
        """What leaves the layers of `span`, (B, L, width), padded on the left."""
        return self._run(span, collate(batch, self.pad_id, states, self.eyes))

    def _from_pack(
        self, span: range, batch: Sequence[Rendering], states: States | None = None
    ) -> list[torch.Tensor]:
        """The same of every example by itself, shared beginnings computed once."""
        places = lay_out(told_apart(batch, self.eyes)).places
        with packing_attention(self.model):
            hidden = self._run(span, pack(batch, states, self.eyes))[0]
        return [hidden[list(own)] for own in places]

    def _run(self, span: range, batch: Batch, *, precise: bool = False) -> torch.Tensor:
        self.model.eval()
        inputs = batch.to(self.model.device).inputs()
        with nullcontext() if precise else self._precision():
            hidden: torch.Tensor = run_layers(self.model, span, inputs)
        return hidden

    @property
    def _coarse(self) -> bool:
        return self.dtype != torch.float32 or self.autocast is not None

    @property
    def _tolerance(self) -> float:
        return TOLERANCE["bfloat16" if self._coarse else "float32"]

    def _precision(self) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.autocast)

    def _bytes(self, rendering: Rendering) -> int:
        return len(rendering.token_ids) * self.width * self.dtype.itemsize

    def _say(self, missing: int) -> None:
        self.progress.say(
            f"Hidden states that enter layer {self.below}: {_gb(self.size)} for "
            f"{len(self.wanted)} texts, {missing} of them to compute, in {self.folder}"
        )

    def _make_room(self, needed: int, keep: set[Path]) -> None:
        """Remove the least recently used files of other runs until `needed` bytes are allowed."""
        for part in self.root.glob("*/.*.part"):
            part.unlink()  # of a process that was killed: who writes holds the lock
        others = [path for path in self.root.glob("*/*.safetensors") if path not in keep]
        sizes = {path: path.stat().st_size for path in others}
        total = sum(sizes.values()) + sum(path.stat().st_size for path in keep)
        for path in sorted(others, key=lambda path: path.stat().st_mtime):
            if total + needed <= self.limit:
                break
            path.unlink()
            total -= sizes[path]
            self.progress.say(f"Removed {path} to stay within tune.cache_limit_gb")
        if total + needed > self.limit:
            raise NotUsedError(
                f"{self.folder} holds {_gb(total)} of this and other data; remove what is not "
                f"needed, or allow more than tune.cache_limit_gb={self.limit / 1e9:g}"
            )
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise NotUsedError(f"the states need {_gb(needed)} on disk, and {_gb(free)} are free")

    def _lock(self) -> AbstractContextManager[None]:
        """One process at a time looks and writes; another one then finds what it wrote."""
        said = "Waiting for another run that is filling the hidden-state cache"
        wait = partial(self.progress.say, said)
        return held(self.root / "cache.lock", self.root, wait=wait)


def _batches(renderings: Sequence[Rendering]) -> Iterator[list[Rendering]]:
    """Batches of about the same length within the token budget, the longest first."""
    order = sorted(renderings, key=lambda r: -len(r.token_ids))
    while order:
        size = max(1, TOKEN_BUDGET // len(order[0].token_ids))
        yield order[:size]
        order = order[size:]


def _packs(renderings: Sequence[Rendering], eyes: Eyes | None) -> Iterator[list[Rendering]]:
    """Groups that begin alike, each of about the token budget when what they share stands once."""
    group: list[Rendering] = []
    tokens = 0
    before: tuple[int, ...] = ()
    told = zip(told_apart(renderings, eyes), renderings, strict=True)
    for ids, rendering in sorted(told, key=lambda pair: pair[0]):
        own = len(ids)
        added = own - (shared_length([before, ids]) if group else 0)
        if group and tokens + added > TOKEN_BUDGET:
            yield group
            group, tokens, added = [], 0, own
        group.append(rendering)
        tokens, before = tokens + added, ids
    yield group


def _lens(eyes: Eyes | None) -> str:
    """How images are made ready for the model."""
    return "" if eyes is None else eyes.vision.settings


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
