"""Rows of token ids as rectangles: which go together, and what fills them up."""

from collections.abc import Iterable, Iterator, Sequence

import torch


def batches(
    rows: Sequence[Sequence[int]], token_budget: int, among: Iterable[int] | None = None
) -> Iterator[list[int]]:
    """Indices of rows of about the same length, the longest first: memory fails at once.

    A batch holds at most `token_budget` tokens, padding included, or one row. With `among` no
    others are given than these.
    """
    every = range(len(rows)) if among is None else among
    order = sorted(every, key=lambda index: -len(rows[index]))
    start = 0
    while start < len(order):
        size = max(1, token_budget // len(rows[order[start]]))
        yield order[start : start + size]
        start += size


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, prefix: Sequence[int] = ()
) -> dict[str, torch.Tensor]:
    """`input_ids` and their mask: the shared `prefix`, padding, then what is each row's own."""
    longest = max(len(prompt) for prompt in prompts)
    head, start = list(prefix), len(prefix)
    pads = [longest - len(prompt) for prompt in prompts]
    ids = [head + [pad_id] * pad + list(p[start:]) for pad, p in zip(pads, prompts, strict=True)]
    mask = [[1] * start + [0] * pad + [1] * (longest - start - pad) for pad in pads]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def right_padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """`input_ids` of rows that end with padding, which no causal model sees, and their mask."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
