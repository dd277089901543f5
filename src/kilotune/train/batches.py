"""Renderings to padded tensors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from kilotune.render.labels import Rendering

IGNORED = -100  # the target that cross-entropy leaves out, as everywhere in PyTorch

# Tensors by name; a packed batch has a `Pack` as well.
Batch = dict[str, Any]


def collate(renderings: Sequence[Rendering], pad_id: int) -> Batch:
    """Pad on the left, so that the answers of a batch end in the same column.

    Returns, for B examples of at most L tokens:
    `input_ids`, `attention_mask`, `position_ids` of shape (B, L);
    `columns` of shape (K,): the positions whose next token is trained in any example;
    `targets` of shape (B, K): that next token, or IGNORED.
    Logits are needed in `columns` alone: answers being short, K is far below L.
    """
    longest = max(len(r.token_ids) for r in renderings)
    shape = (len(renderings), longest)
    input_ids = torch.full(shape, pad_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    # targets_everywhere[b, t] is the token after t, where that is trained.
    targets_everywhere = torch.full(shape, IGNORED)
    for row, rendering in enumerate(renderings):
        start = longest - len(rendering.token_ids)
        ids = torch.tensor(rendering.token_ids)
        mask = torch.tensor(rendering.label_mask)
        input_ids[row, start:] = ids
        attention_mask[row, start:] = 1
        following = torch.where(mask[1:], ids[1:], IGNORED)
        targets_everywhere[row, start : longest - 1] = following
    columns = (targets_everywhere != IGNORED).any(dim=0).nonzero().squeeze(1)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": positions(attention_mask),
        "columns": columns,
        "targets": targets_everywhere[:, columns],
    }


def blank(rendering: Rendering) -> Rendering:
    """The same tokens with none of them trained: adds nothing to a loss or its gradient."""
    return replace(rendering, label_mask=(False,) * len(rendering.label_mask))


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows: each example counts from 0 at its first token."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
