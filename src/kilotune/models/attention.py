"""Attention over a pack: examples that share their beginnings, laid out as one sequence.

In a pack every token sees the stretches that its own stretch continues, and its own stretch up to
itself. Most of a dense mask would be masked out, so each piece is computed by itself: a stretch
with itself (causal), and all that continues a stretch with that stretch (a plain matrix product
without a mask). The pieces are joined exactly by their log-sum-exp (Milakov and Gimelshein 2018;
the backward pass recomputes the weights from it, as in Dao et al. 2022).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kilotune.models.attention_pieces import (
    AttentionPiece,
    Block,
    Joined,
    inner,
    put,
    slopes_of,
    soften,
)
from kilotune.models.pretrained import Model

PACKED = "kilotune_packed"

# Scores held at once. Pieces beyond it are cut: on a processor they then stay in its cache.
SCORES = 1 << 22


class UnsupportedError(Exception):
    """A model whose attention a pack cannot be computed by; the message says why."""


@dataclass(frozen=True, slots=True)
class Pack:
    """How the tokens of one packed sequence see each other.

    `blocks` cover every token once. `reaches` are (from, to, start, stop): the tokens from..to see
    all of start..stop. `longest` is the longest example in tokens.
    """

    blocks: tuple[Block, ...]
    reaches: tuple[tuple[int, int, int, int], ...]
    longest: int
    known: dict[int, tuple[AttentionPiece, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pack":
        """The same on another device, as the Trainer moves its batches."""
        moved = tuple(block.to(device, non_blocking=non_blocking) for block in self.blocks)
        return Pack(moved, self.reaches, self.longest)

    def pieces(self, heads: int) -> tuple[AttentionPiece, ...]:
        """What is computed at once for `heads` heads: causal pieces, then those without a mask."""
        if heads not in self.known:
            device = self.blocks[0].gather.device
            blocks = [p for block in self.blocks for p in _cut_block(block, heads)]
            reaches = [p for reach in self.reaches for p in _cut_reach(*reach, heads, device)]
            self.known[heads] = (*blocks, *reaches)
        return self.known[heads]


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    pack: Pack | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers' AttentionInterface; without a `pack` it is plain `sdpa`.

    `query` is (1, heads, T, size), `key` and `value` (1, key heads, T, size). Returns
    (1, T, heads, size). Raises UnsupportedError for what the pieces cannot express.
    """
    if pack is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            **kwargs,
        )
    sliding_window, scaling = kwargs.get("sliding_window"), kwargs.get("scaling")
    if sliding_window is not None and sliding_window < pack.longest:
        raise UnsupportedError(
            f"its attention window of {sliding_window} is shorter than an example"
            f" of {pack.longest} tokens"
        )
    for name in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise UnsupportedError(f"its attention takes {name}")
    if kwargs.get("dropout"):
        raise UnsupportedError("its attention has dropout")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if torch.is_autocast_enabled(query.device.type):  # as it does with `sdpa`'s inputs
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return _PackedAttention.apply(query, key, value, pack, scale), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)


@contextmanager
def packing_attention(model: Model) -> Iterator[None]:
    """Let `model` take a `pack` inside a `with`; plain forwards go on as before.

    Raises UnsupportedError for a model that does not run `sdpa`, the plain path inside.
    """
    text = model.config.get_text_config()
    before = text._attn_implementation
    if before != "sdpa":
        raise UnsupportedError(f"it runs {before} attention")
    setting = PACKED if text is model.config else {"text_config": PACKED}
    model.set_attn_implementation(setting)
    try:
        yield
    finally:
        model.set_attn_implementation(before if text is model.config else {"text_config": before})


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pack: Pack, scale: float
    ) -> Tensor:
        q, k, v = _by_key_head(query, key.shape[1]), key[0], value[0]
        heads, tokens, groups, _ = q.shape
        joined = Joined.empty((heads, tokens, groups, v.shape[-1]), q.device)
        for piece in pack.pieces(heads * groups):
            left, right = piece.rows.of(q), piece.columns.of(k)
            products = torch.bmm(left, right.transpose(1, 2))
            weights, tops, totals = soften(products, piece, groups, scale)
            joined.add(torch.bmm(weights, piece.columns.of(v)), tops, totals, piece)
        result = _arranged(joined.mean.transpose(0, 1), q.dtype).flatten(1, 2)[None]
        ctx.save_for_backward(q, k, v, result, joined.logsum)
        ctx.pack, ctx.scale = pack, scale
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, result, logsum = ctx.saved_tensors
        heads, tokens, groups, _ = q.shape
        given = _by_key_head(grad.transpose(1, 2), heads)
        # What softmax's Jacobian takes off: the same for a whole row, whatever its pieces.
        off = inner(grad, result)[0].view(tokens, heads, groups).transpose(0, 1).contiguous()
        dq, dk, dv = (torch.empty(x.shape, dtype=torch.float32, device=x.device) for x in (q, k, v))
        for piece in ctx.pack.pieces(heads * groups):
            rows, columns, first = piece.rows, piece.columns, piece.causal
            left, right, passed = rows.of(q), columns.of(k), rows.of(given)
            products = torch.bmm(left, right.transpose(1, 2))
            to_weights = torch.bmm(passed, columns.of(v).transpose(1, 2))
            weights, slopes = slopes_of(products, to_weights, (logsum, off), piece, ctx.scale)
            put(torch.bmm(slopes, right), dq, rows, first=first)
            put(torch.bmm(slopes.transpose(1, 2), left), dk, columns, first=first)
            put(torch.bmm(weights.transpose(1, 2), passed), dv, columns, first=first)
        to_query = _arranged(dq.transpose(1, 2), q.dtype).flatten(0, 1)[None]
        return to_query, dk.to(k.dtype)[None], dv.to(v.dtype)[None], None, None


def _arranged(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in memory in the order of its axes, as another type: in one pass."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)


def _by_key_head(x: Tensor, heads: int) -> Tensor:
    """(1, heads * groups, T, size) as contiguous (heads, T, groups, size): grouped queries are
    rows of one product with the keys that they share."""
    _, every, tokens, size = x.shape
    return x[0].view(heads, every // heads, tokens, size).transpose(1, 2).contiguous()


def _cut_block(block: Block, heads: int) -> Iterator[AttentionPiece]:
    """Stretches that see themselves, at most SCORES scores at once."""
    size = max(1, SCORES // (heads * block.length * block.length))
    for first in range(0, block.count, size):
        part = block if size >= block.count else block.part(first, min(first + size, block.count))
        yield AttentionPiece(part, part, causal=True)


def _cut_reach(
    begin: int, end: int, start: int, stop: int, heads: int, device: torch.device
) -> Iterator[AttentionPiece]:
    """Tokens and the stretch that they see, at most SCORES scores at once."""
    size = max(1, SCORES // (heads * (stop - start)))
    seen = Block.run(start, stop, device)
    for low in range(begin, end, size):
        yield AttentionPiece(Block.run(low, min(low + size, end), device), seen, causal=False)
