"""Renderings to padded tensors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn.functional import pad

from kilotune.models.attention import Pack
from kilotune.models.vision import Eyes
from kilotune.rendering.label_mask import Rendering

IGNORED = -100  # the target that cross-entropy leaves out, as everywhere in PyTorch

# The hidden states of a rendering, (length, width).
States = Callable[[Rendering], Tensor]


@dataclass(frozen=True)
class Batch:
    """B examples of at most L tokens: what goes into the model, and what is trained of it.

    `columns` (K,) are the positions whose next token is trained in any example, `targets` (B, K)
    that next token, or IGNORED; `weights` (B, K), where any example has another than 1, what each
    target counts. Logits are needed in `columns` alone: answers being short, K is far below L.
    `hidden_states` (B, L, width) are what the forward starts from instead of `input_ids` (B, L).
    `images` are the model's inputs for images, by the names it has for them. Of a packed batch
    `pack` says how its tokens see each other.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    columns: Tensor
    targets: Tensor
    weights: Tensor | None = None
    images: Mapping[str, Tensor] = field(default_factory=dict)
    hidden_states: Tensor | None = None
    pack: Pack | None = None

    def inputs(self) -> dict[str, Any]:
        """What goes into the model by name: token ids and images, or hidden states instead."""
        beside = {"attention_mask": self.attention_mask, "position_ids": self.position_ids}
        packed = {} if self.pack is None else {"pack": self.pack}
        if self.hidden_states is not None:
            return {"inputs_embeds": self.hidden_states, **beside, **packed}
        return {"input_ids": self.input_ids, **self.images, **beside, **packed}

    def to(self, device: torch.device) -> "Batch":
        """The same on another device."""
        return Batch(**send_to_device(vars(self), device))

    def labelled_count(self) -> Tensor:
        """How many tokens are trained, whatever their weights.

        What the sum of losses is divided by: with weights in the divisor too, a step whose examples
        all weigh a half would be as large as one of whole weights.
        """
        return (self.targets != IGNORED).sum()


def collate(
    renderings: Sequence[Rendering],
    pad_id: int,
    states: States | None = None,
    eyes: Eyes | None = None,
) -> Batch:
    """Pad on the left, so that the answers of a batch end in the same column.

    Returns a batch that starts from `states`, if they are given. Images need the model's `eyes`;
    where it counts so, `position_ids` beside them are of shape (3, B, L).
    """
    longest = max(len(r.token_ids) for r in renderings)
    shape = (len(renderings), longest)
    input_ids = torch.full(shape, pad_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    # following[b, t] is the token after t, where that is trained.
    following = torch.full(shape, IGNORED)
    for row, rendering in enumerate(renderings):
        start = longest - len(rendering.token_ids)
        ids = torch.tensor(rendering.token_ids)
        mask = torch.tensor(rendering.label_mask)
        input_ids[row, start:] = ids
        attention_mask[row, start:] = 1
        following[row, start : longest - 1] = torch.where(mask[1:], ids[1:], IGNORED)
    columns = (following != IGNORED).any(dim=0).nonzero().squeeze(1)
    images = [image for rendering in renderings for image in rendering.images]
    assert eyes is not None or not images
    beside = eyes.positions(images, input_ids, attention_mask) if eyes else None
    return Batch(
        input_ids,
        attention_mask,
        positions(attention_mask) if beside is None else beside,
        columns,
        targets=following[:, columns],
        weights=_weights(renderings, len(columns)),
        images=eyes.inputs(images, input_ids) if eyes and states is None else {},
        hidden_states=_stacked(map(states, renderings), longest) if states else None,
    )


def _weights(renderings: Sequence[Rendering], count: int) -> Tensor | None:
    if all(rendering.weight == 1 for rendering in renderings):
        return None
    weights = torch.tensor([[rendering.weight] for rendering in renderings])
    return weights.expand(-1, count).contiguous()


def _stacked(states: Iterable[Tensor], longest: int) -> Tensor:
    """States (length, width) as (B, longest, width), padded on the left."""
    return torch.stack([pad(row, (0, 0, longest - len(row), 0)) for row in states])


def blank(rendering: Rendering) -> Rendering:
    """The same tokens with none of them trained: adds nothing to a loss or its gradient."""
    return replace(rendering, label_mask=(False,) * len(rendering.label_mask))


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows: each example counts from 0 at its first token."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
