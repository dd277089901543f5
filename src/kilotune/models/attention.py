"""Attention over a pack: examples that share their beginnings, laid out as one sequence.

In a pack every token sees the stretches that its own stretch continues, and its own stretch up to
itself. Most of a dense mask would be masked out, so each piece is computed by itself: a stretch
with itself (causal), and all that continues a stretch with that stretch (a plain matrix product
without a mask). The pieces are joined exactly by their log-sum-exp (Milakov and Gimelshein 2018;
the backward pass recomputes the weights from it, as in Dao et al. 2022).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kilotune.models.pretrained import Model

PACKED = "kilotune_packed"

# Scores held at once. Pieces beyond it are cut: on a processor they then stay in its cache.
SCORES = 1 << 22


class UnsupportedError(Exception):
    """A model whose attention a pack cannot be computed by; the message says why."""


@dataclass(frozen=True, slots=True)
class Block:
    """Stretches of about the same length, each seeing itself alone: `count` rows of `length`.

    `gather` (count * length) says which token fills each place, padding included; `places` are
    those that are no padding, and `tokens` what stands there.
    """

    count: int
    length: int
    gather: Tensor
    places: Tensor
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class Pack:
    """How the tokens of one packed sequence see each other.

    `blocks` cover every token once. `reaches` are (from, to, start, stop): the tokens from..to see
    all of start..stop. `longest` is the longest example in tokens.
    """

    blocks: tuple[Block, ...]
    reaches: tuple[tuple[int, int, int, int], ...]
    longest: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Pack":
        """The same on another device, as the Trainer moves its batches."""
        blocks = tuple(
            Block(
                block.count,
                block.length,
                *(
                    part.to(device, non_blocking=non_blocking)
                    for part in (block.gather, block.places, block.tokens)
                ),
            )
            for block in self.blocks
        )
        return Pack(blocks, self.reaches, self.longest)


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
        shape = (heads, tokens, groups, v.shape[-1])
        out = torch.empty(shape, dtype=torch.float32, device=q.device)
        top = torch.empty(*shape[:3], 1, dtype=torch.float32, device=q.device)
        total = torch.empty_like(top)
        for block in _cut_blocks(pack, heads * groups):
            scores = _block_scores(q, k, block, scale)
            high = scores.amax(dim=-1, keepdim=True)
            weights = scores.sub_(high).exp_()
            mixed = weights.to(v.dtype) @ _rows(v, block)
            for whole, part in ((out, mixed), (top, high), (total, weights.sum(-1, True))):
                _put(whole, part, block)
        for rows, seen in _cut_reaches(pack, heads * groups):
            scores = _reach_scores(q, k, rows, seen, scale)
            old = _flat(top[:, rows])
            high = torch.maximum(old, scores.amax(dim=-1, keepdim=True))
            weights = scores.sub_(high).exp_()
            kept = (old - high).exp_()
            sums = _flat(total[:, rows]) * kept + weights.sum(-1, keepdim=True)
            mixed = _flat(out[:, rows]).mul(kept).add_(weights.to(v.dtype) @ v[:, seen])
            for whole, part in ((out, mixed), (top, high), (total, sums)):
                whole[:, rows] = part.view(heads, -1, groups, part.shape[-1])
        result = out.div_(total).to(query.dtype).transpose(0, 1).flatten(1, 2)[None]
        ctx.save_for_backward(query, key, value, result, top.add_(total.log_()))
        ctx.pack, ctx.scale = pack, scale
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, result, logsum = ctx.saved_tensors
        pack, scale = ctx.pack, ctx.scale
        q, k, v = _by_key_head(query, key.shape[1]), key[0], value[0]
        heads, tokens, groups, size = q.shape
        given = _by_key_head(grad.transpose(1, 2), heads)
        # What softmax's Jacobian takes off: the same for a whole row, whatever its pieces.
        off = (grad.float() * result.float()).sum(-1)[0].view(tokens, heads, groups, 1)
        off = off.transpose(0, 1).contiguous()
        dq = torch.empty(heads, tokens, groups, size, dtype=torch.float32, device=q.device)
        dk = torch.empty(k.shape, dtype=torch.float32, device=k.device)
        dv = torch.empty(v.shape, dtype=torch.float32, device=v.device)
        for block in _cut_blocks(pack, heads * groups):
            weights = _block_scores(q, k, block, scale).sub_(_rows(logsum, block)).exp_()
            passed = _rows(given, block)
            slope = (passed @ _rows(v, block).transpose(-1, -2)).float()
            slope = slope.sub_(_rows(off, block)).mul_(weights).to(q.dtype)
            # Places of padding repeat a real token: what they pass on must not count.
            _put(dq, slope @ _rows(k, block), block)
            _put(dk, _real(slope, block, groups).transpose(-1, -2) @ _rows(q, block), block)
            weights = _real(weights, block, groups).to(v.dtype)
            _put(dv, weights.transpose(-1, -2) @ passed, block)
        for rows, seen in _cut_reaches(pack, heads * groups):
            weights = _reach_scores(q, k, rows, seen, scale)
            weights = weights.sub_(_flat(logsum[:, rows])).exp_()
            passed = _flat(given[:, rows])
            slope = (passed @ v[:, seen].transpose(1, 2)).float()
            slope = slope.sub_(_flat(off[:, rows])).mul_(weights).to(q.dtype)
            dq[:, rows] += (slope @ k[:, seen]).view(heads, -1, groups, size)
            dk[:, seen] += slope.transpose(1, 2) @ _flat(q[:, rows])
            dv[:, seen] += weights.to(v.dtype).transpose(1, 2) @ passed
        dq = dq.mul_(scale).to(q.dtype).transpose(1, 2).reshape(1, heads * groups, tokens, size)
        return dq, dk.mul_(scale).to(k.dtype)[None], dv.to(v.dtype)[None], None, None


def _by_key_head(x: Tensor, heads: int) -> Tensor:
    """(1, heads * groups, T, size) as contiguous (heads, T, groups, size): grouped queries are
    rows of one product with the keys that they share."""
    _, every, tokens, size = x.shape
    return x[0].view(heads, every // heads, tokens, size).transpose(1, 2).contiguous()


def _flat(x: Tensor) -> Tensor:
    """(heads, T, groups, size) as (heads, T * groups, size)."""
    return x.flatten(1, 2)


def _rows(x: Tensor, block: Block) -> Tensor:
    """The tokens of a block, (heads, T, ..., size) as (heads, count, length * groups, size)."""
    taken = x.index_select(1, block.gather)
    return taken.view(x.shape[0], block.count, -1, x.shape[-1])


def _put(whole: Tensor, part: Tensor, block: Block) -> None:
    """The inverse of `_rows`, padding dropped."""
    placed = part.reshape(part.shape[0], block.count * block.length, *whole.shape[2:])
    if len(block.places) < block.count * block.length:
        placed = placed.index_select(1, block.places)
    whole.index_copy_(1, block.tokens, placed.to(whole.dtype))


def _real(weights: Tensor, block: Block, groups: int) -> Tensor:
    """Zero the rows of padding in (heads, count, length * groups, length)."""
    if len(block.places) == block.count * block.length:
        return weights
    real = torch.zeros(block.count * block.length, dtype=weights.dtype, device=weights.device)
    real[block.places] = 1
    return weights * real.repeat_interleave(groups).view(1, block.count, -1, 1)


def _block_scores(q: Tensor, k: Tensor, block: Block, scale: float) -> Tensor:
    """Scores of a block with itself, (heads, count, length * groups, length) in float32."""
    left, right = _rows(q, block).flatten(0, 1), _rows(k, block).flatten(0, 1)
    barred = _barred(block.length, q.shape[2], q.device, q.dtype)
    scores = torch.baddbmm(barred, left, right.transpose(1, 2), alpha=scale)
    return scores.float().view(q.shape[0], block.count, -1, block.length)


def _reach_scores(q: Tensor, k: Tensor, rows: slice, seen: slice, scale: float) -> Tensor:
    """Scores of some tokens with a stretch before them, (heads, rows * groups, seen), float32."""
    left, right = _flat(q[:, rows]), k[:, seen].transpose(1, 2)
    empty = left.new_empty(1, 1, 1)  # beta is 0: not read
    return torch.baddbmm(empty, left, right, beta=0, alpha=scale).float()


@lru_cache(maxsize=64)
def _barred(length: int, groups: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Minus infinity where a row of (length * groups, length) must not see."""
    later = torch.ones(length, length, device=device, dtype=torch.bool).triu(1)
    barred = torch.zeros(length, length, device=device, dtype=dtype)
    return barred.masked_fill_(later, float("-inf")).repeat_interleave(groups, dim=0)


def _cut_blocks(pack: Pack, heads: int) -> Iterator[Block]:
    """Blocks of at most SCORES scores."""
    for block in pack.blocks:
        size = max(1, SCORES // (heads * block.length * block.length))
        if size >= block.count:
            yield block
            continue
        for start in range(0, block.count, size):
            stop = min(start + size, block.count)
            border = torch.tensor([start, stop], device=block.places.device) * block.length
            low, high = torch.searchsorted(block.places, border).tolist()
            first = start * block.length
            yield Block(
                stop - start,
                block.length,
                block.gather[first : stop * block.length],
                block.places[low:high] - first,
                block.tokens[low:high],
            )


def _cut_reaches(pack: Pack, heads: int) -> Iterator[tuple[slice, slice]]:
    """Tokens and what they see, at most SCORES scores at once."""
    for begin, end, start, stop in pack.reaches:
        size = max(1, SCORES // (heads * (stop - start)))
        for low in range(begin, end, size):
            yield slice(low, min(low + size, end)), slice(start, stop)
