"""Renderings to padded tensors."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import pad

from kilotune.models.vision import Eyes
from kilotune.rendering.label_mask import Rendering

IGNORED = -100  # the target that cross-entropy leaves out, as everywhere in PyTorch

LABELS = ("columns", "targets", "weights")
BESIDE_STATES = ("attention_mask", "position_ids", "pack")

# Tensors by name; a packed batch has a `Pack` as well.
Batch = dict[str, Any]


States = Callable[[Rendering], torch.Tensor]


def collate(
    renderings: Sequence[Rendering],
    pad_id: int,
    states: States | None = None,
    eyes: Eyes | None = None,
) -> Batch:
    """Pad on the left, so that the answers of a batch end in the same column.

    Returns, for B examples of at most L tokens:
    `input_ids`, `attention_mask`, `position_ids` of shape (B, L);
    `columns` of shape (K,): the positions whose next token is trained in any example;
    `targets` of shape (B, K): that next token, or IGNORED;
    `weights` of shape (B, K), where any example has another than 1: what each target counts.
    Logits are needed in `columns` alone: answers being short, K is far below L.
    With `states`, the hidden states (length, width) of a rendering: `inputs_embeds` of shape
    (B, L, width), which the forward then starts from instead of `input_ids`. With images, which
    need the model's `eyes`: their pixels by the names the model has for them, and where it counts
    so, `position_ids` of shape (3, B, L).
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
    batch = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": positions(attention_mask),
        "columns": columns,
        "targets": targets_everywhere[:, columns],
    }
    if any(rendering.weight != 1 for rendering in renderings):
        weights = torch.tensor([[rendering.weight] for rendering in renderings])
        batch["weights"] = weights.expand(batch["targets"].shape).contiguous()
    if images := [image for rendering in renderings for image in rendering.images]:
        assert eyes is not None
        positions_beside = eyes.positions(images, input_ids, attention_mask)
        if positions_beside is not None:
            batch["position_ids"] = positions_beside
        if states is None:
            batch.update(eyes.inputs(images, input_ids))
    if states is not None:
        rows = [states(rendering) for rendering in renderings]
        batch["inputs_embeds"] = torch.stack(
            [pad(row, (0, 0, longest - len(row), 0)) for row in rows]
        )
    return batch


def model_inputs(batch: Batch) -> Batch:
    """What of a batch goes into the model: token ids and images, or hidden states instead."""
    if "inputs_embeds" in batch:
        names = [name for name in ("inputs_embeds", *BESIDE_STATES) if name in batch]
    else:
        names = [name for name in batch if name not in LABELS]
    inputs = {name: batch[name] for name in names}
    if "pack" in batch:
        # A mask of four axes is passed on as it is: no dense one is built.
        inputs["attention_mask"] = torch.zeros(1, 1, 1, 1, device=batch["position_ids"].device)
    return inputs


def blank(rendering: Rendering) -> Rendering:
    """The same tokens with none of them trained: adds nothing to a loss or its gradient."""
    return replace(rendering, label_mask=(False,) * len(rendering.label_mask))


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows: each example counts from 0 at its first token."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
