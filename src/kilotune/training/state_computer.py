"""The forward that fills the cache: hidden states that leave the lower layers of a model."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kilotune.errors import some
from kilotune.models.attention import packing_attention
from kilotune.models.lower import active_dropout, in_float32, run_layers
from kilotune.models.pretrained import Model
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import Eyes
from kilotune.progress import Progress
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import Batch, States, collate
from kilotune.training.packing import lay_out, pack, shared_length, told_apart
from kilotune.training.state_store import TYPES, StateWriter, key_of

# Tokens, padding included, that go through the lower layers at once.
TOKEN_BUDGET = 4096


@dataclass(frozen=True, slots=True)
class StateComputer:
    """Takes renderings through the layers of `model` under `below`.

    `autocast` is the type that float32 weights are multiplied in, if not their own.
    """

    model: Model
    below: int
    pad_id: int
    autocast: torch.dtype | None = None
    eyes: Eyes | None = None

    @property
    def probe_span(self) -> range:
        """The layers that are tried before anything is computed: of a streamed model one."""
        return range(1 if streamed_layers(self.model) else self.below)

    def probe(self, rendering: Rendering) -> tuple[int, torch.dtype] | str:
        """Width and type of the states, found on a short rendering; or why there can be none."""
        if not self.below:
            return "every layer is trained, or something outside the layers"
        if found := active_dropout(self.model, self.below):
            return f"there is dropout under layer {self.below}: {some(found, 2)}"
        try:
            states = self.padded(self.probe_span, [rendering])
        except Exception as error:  # what a foreign model's code makes of it, none can foresee
            return f"its lower layers cannot be run alone: {error}"
        if not isinstance(states, Tensor) or states.ndim != 3 or states.dtype not in TYPES:
            return "its layers hand on more than hidden states"
        return int(states.shape[-1]), states.dtype

    def precision(self) -> AbstractContextManager[object]:
        """Inside the `with`, forwards are computed as they are in training."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.autocast)

    def padded(
        self, span: range, batch: Sequence[Rendering], states: States | None = None
    ) -> Tensor:
        """What leaves the layers of `span`, (B, L, width), padded on the left."""
        return self._run(span, collate(batch, self.pad_id, states, self.eyes))

    def packed(
        self, span: range, batch: Sequence[Rendering], states: States | None = None
    ) -> list[Tensor]:
        """The same of every example by itself, shared beginnings computed once."""
        places = lay_out(told_apart(batch, self.eyes)).places
        with packing_attention(self.model):
            hidden = self._run(span, pack(batch, states, self.eyes))[0]
        return [hidden[list(own)] for own in places]

    def exact(self, span: range, batch: Sequence[Rendering]) -> Tensor:
        """The same in float32, (tokens, width).

        A layer at a time, so that a model in bfloat16 needs little more memory.
        """
        plain = collate(batch, self.pad_id, eyes=self.eyes)
        states = self._run(range(0), plain, precise=True).float()
        for index in span:
            with in_float32(self.model, index):
                given = replace(plain, hidden_states=states)
                states = self._run(range(index, index + 1), given, precise=True)
        return states.cpu()[plain.attention_mask.bool()]

    def fill(
        self,
        writer: StateWriter,
        renderings: Sequence[Rendering],
        progress: Progress,
        *,
        packs: bool,
    ) -> None:
        """Compute the states of `renderings` and write them, in packs or padded batches.

        A streamed model's layers are read once each, whatever the number of renderings: all of
        them go through a layer before the next one is read, the file holding what is between.
        """
        layers = [layer for _, layer in streamed_layers(self.model)]
        spans = [range(i, i + 1) for i in range(self.below)] if layers else [range(self.below)]
        batches = list(_packs(renderings, self.eyes) if packs else _batches(renderings))
        run = self.packed if packs else self.padded
        with progress.bar("hidden states", len(spans) * len(renderings)) as bar:
            for span in spans:
                before = (lambda r: writer.read(key_of(r))) if span.start else None
                with ExitStack() as stack:
                    for layer in layers[span.start : span.stop]:
                        stack.enter_context(layer.held(self.model.device))
                    for batch in batches:
                        for rendering, row in zip(batch, run(span, batch, before), strict=True):
                            writer.write(key_of(rendering), row[-len(rendering.token_ids) :])
                        bar.advance(len(batch))

    def _run(self, span: range, batch: Batch, *, precise: bool = False) -> Tensor:
        self.model.eval()
        with nullcontext() if precise else self.precision():
            hidden: Tensor = run_layers(self.model, span, batch.to(self.model.device).inputs())
        return hidden


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
