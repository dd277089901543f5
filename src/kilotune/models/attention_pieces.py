"""The pieces of a pack's attention, and what is done to their scores between the products.

Each step is one pass over memory where `row_kernels` has it compiled, and a few operations of
torch elsewhere. Scores of a piece are (heads * count, length * groups, columns): grouped queries
are rows of one product with the keys that they share.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kilotune.models.row_kernels import kernels_for


@dataclass(frozen=True, slots=True)
class Block:
    """Stretches of about the same length: `count` rows of `length`.

    `gather` (count * length) says which token fills each place, padding included, which repeats
    the token before it; `places` are those that are no padding, and `tokens` what stands there.
    Where the places are tokens one after another, `start` is the first of them.
    """

    count: int
    length: int
    gather: Tensor
    places: Tensor
    tokens: Tensor
    start: int | None = None

    @classmethod
    def run(cls, start: int, stop: int, device: torch.device) -> "Block":
        """The tokens from `start` to `stop`."""
        every = torch.arange(stop - start, device=device)
        return cls(1, stop - start, every + start, every, every + start, start)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Block":
        """The same on another device."""
        parts = (self.gather, self.places, self.tokens)
        gather, places, tokens = (part.to(device, non_blocking=non_blocking) for part in parts)
        return Block(self.count, self.length, gather, places, tokens, self.start)

    def part(self, first: int, last: int) -> "Block":
        """The stretches from number `first` to `last`."""
        border = torch.tensor([first, last], device=self.places.device) * self.length
        low, high = torch.searchsorted(self.places, border).tolist()
        begin, end = first * self.length, last * self.length
        return Block(
            last - first,
            self.length,
            self.gather[begin:end],
            self.places[low:high] - begin,
            self.tokens[low:high],
            None if self.start is None else self.start + begin,
        )

    def of(self, x: Tensor) -> Tensor:
        """The tokens of a block, (heads, T, ..., size) as (heads * count, length * ..., size)."""
        if self.start is None:
            taken = x.index_select(1, self.gather)
        else:
            taken = x[:, self.start : self.start + len(self.gather)]
        return taken.reshape(x.shape[0] * self.count, -1, x.shape[-1])


@dataclass(frozen=True, slots=True)
class AttentionPiece:
    """Tokens that see others: each of `rows` all of `columns`, or itself and those before it."""

    rows: Block
    columns: Block
    causal: bool


@dataclass(frozen=True, slots=True)
class Joined:
    """What pieces gave so far: the `mean` of values (heads, T, groups, size), and the `logsum` of
    scores (heads, T, groups), both in float32."""

    mean: Tensor
    logsum: Tensor

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int], device: torch.device) -> "Joined":
        """Before the first piece."""
        mean = torch.empty(shape, dtype=torch.float32, device=device)
        return cls(mean, mean.new_empty(shape[:3]))

    def add(self, part: Tensor, tops: Tensor, totals: Tensor, piece: AttentionPiece) -> None:
        """Join sums of values, weighted as `soften` does; the causal pieces come first."""
        heads, every, groups, size = self.mean.shape
        rows, first = piece.rows, piece.causal
        if kernels := kernels_for(part, size):
            shape = (heads, rows.count, rows.length, groups, size, every)
            into = (rows.gather, self.mean, self.logsum)
            kernels("join", part, tops, totals, *into, *shape, int(first))
            return
        now, mean = tops + totals.log(), part.float().div_(totals)
        if not first:
            own, before = now, rows.of(self.logsum[..., None])
            now = torch.logaddexp(own, before)
            mean = rows.of(self.mean) * (before - now).exp() + mean.mul_((own - now).exp())
        put(mean, self.mean, rows, first=True)
        put(now, self.logsum[..., None], rows, first=True)


def soften(
    products: Tensor, piece: AttentionPiece, groups: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax's weights of `products` times `scale`, but for their sum: it goes with them.

    Returns exp(score - top), the tops and the sums of each row. `products` are overwritten.
    """
    batch, rows, columns = products.shape
    if kernels := kernels_for(products):
        tops, totals = products.new_empty(2, batch, rows, 1, dtype=torch.float32)
        shape = (batch, rows, columns, groups)
        kernels("soften", products, tops, totals, *shape, int(piece.causal), scale)
        return products, tops, totals
    scores = _scores(products, piece, groups, scale)
    tops = scores.amax(dim=-1, keepdim=True)
    weights = scores.sub_(tops).exp_()
    return weights.to(products.dtype), tops, weights.sum(dim=-1, keepdim=True)


def slopes_of(
    products: Tensor,
    passed: Tensor,
    kept: tuple[Tensor, Tensor],
    piece: AttentionPiece,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Weights, and the gradient of `products` from that of the weights (`passed`).

    `kept` are the logsum of each row and what softmax's Jacobian takes off, (heads, T, groups).
    Rows of padding are zero: what they pass on must not count. Both inputs are overwritten.
    """
    rows, (logsum, off) = piece.rows, kept
    heads, every, groups = logsum.shape
    if kernels := kernels_for(products):
        shape = (heads, rows.count, rows.length, groups, products.shape[-1], every)
        kernels(
            "slopes", products, passed, rows.gather, logsum, off, *shape, int(piece.causal), scale
        )
        return products, passed
    sums, less = (rows.of(x[..., None]) for x in kept)
    weights = _scores(products, piece, groups, scale).sub_(sums).exp_()
    if len(rows.places) < len(rows.gather):
        real = torch.zeros(len(rows.gather), dtype=weights.dtype, device=weights.device)
        real[rows.places] = 1
        real = real.repeat_interleave(groups).view(rows.count, -1, 1)
        weights.view(heads, rows.count, *weights.shape[1:]).mul_(real)
    slopes = passed.float().sub_(less).mul_(weights).mul_(scale)
    return weights.to(products.dtype), slopes.to(products.dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each row of `a` (..., size) with that of `b`, (...) in float32."""
    width = a.shape[-1]
    if kernels := kernels_for(a, width):
        products = a.new_empty(a.shape[:-1], dtype=torch.float32)
        kernels("inner", a.contiguous(), b.contiguous(), products, products.numel(), width)
        return products
    return (a.float() * b.float()).sum(-1)


def put(part: Tensor, whole: Tensor, block: Block, *, first: bool) -> None:
    """The inverse of `Block.of`, padding dropped: into `whole`, or added to it."""
    heads, every = whole.shape[:2]
    width = whole[0, 0].numel()
    kernels = kernels_for(part, part.shape[-1])
    if kernels and whole.is_contiguous():
        shape = (heads, block.count, block.length, width, every)
        kernels("put", part, block.gather, whole, *shape, int(first))
        return
    placed = part.to(whole.dtype).reshape(heads, len(block.gather), *whole.shape[2:])
    if len(block.places) < len(block.gather):
        placed = placed.index_select(1, block.places)
    if first:
        whole.index_copy_(1, block.tokens, placed)
    else:
        whole.index_add_(1, block.tokens, placed)


def _scores(products: Tensor, piece: AttentionPiece, groups: int, scale: float) -> Tensor:
    scores = products.float().mul_(scale)
    return (
        scores.add_(_barred(piece.rows.length, groups, scores.device)) if piece.causal else scores
    )


@lru_cache(maxsize=64)
def _barred(length: int, groups: int, device: torch.device) -> Tensor:
    """Minus infinity where a row of (length * groups, length) must not see."""
    later = torch.ones(length, length, device=device, dtype=torch.bool).triu(1)
    barred = torch.zeros(length, length, device=device)
    return barred.masked_fill_(later, float("-inf")).repeat_interleave(groups, dim=0)
