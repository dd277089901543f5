"""What all prompts begin with, computed once: its keys and values serve every batch.

With a system message and an instruction before each text, most of a prompt is the same for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache
from transformers.cache_utils import get_layer_types_and_kwargs

from kilotune.models.pretrained import Model, takes_argument

# Fewer shared tokens than this are not worth a forward of their own.
SHORTEST = 8


@dataclass(frozen=True, slots=True)
class Prefix:
    """Token ids and, for each layer, their keys and values of shape (1, heads, length, width)."""

    token_ids: tuple[int, ...]
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()

    def __len__(self) -> int:
        return len(self.token_ids)

    def cache(self, rows: int) -> DynamicCache:
        """A fresh cache in which each of `rows` rows has read the prefix."""
        return DynamicCache(
            [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in self.layers]
        )


NONE = Prefix(())


def shared_prefix(
    model: Model, prompts: Sequence[Sequence[int]], more: int, most: int | None = None
) -> Prefix:
    """The longest common beginning of `prompts`, of `most` tokens at most, as `model` has read it.

    At least one token of every prompt is left over. `NONE` where little is shared, or where the
    model's attention would not allow it after `more` tokens beyond the longest prompt.
    """
    ids = common_prefix(prompts)[:most]
    longest = max((len(prompt) for prompt in prompts), default=0) + more
    if len(prompts) < 2 or len(ids) < SHORTEST or obstacle(model, longest):
        return NONE
    cache = DynamicCache()
    one = {"logits_to_keep": 1} if takes_argument(model, "logits_to_keep") else {}
    with torch.inference_mode():
        model(torch.tensor([ids], device=model.device), cache=cache, use_cache=True, **one)
    return Prefix(ids, tuple((layer.keys, layer.values) for layer in cache.layers))


def common_prefix(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The token ids that all prompts begin with, short of the last token of the shortest."""
    rows = [tuple(prompt) for prompt in prompts]
    if not rows:
        return ()
    # What the first and the last in order share, all between them share.
    low, high = min(rows), max(rows)
    most = min(len(row) for row in rows) - 1
    differing = (i for i in range(most) if low[i] != high[i])
    return low[: next(differing, most)]


def obstacle(model: Model, longest: int) -> str:
    """Why rows of `longest` tokens cannot go on from a shared cache, or nothing.

    A padded row has its tokens apart from their positions, so positions must be the model's to
    take, and no sliding window may end between the prefix and the row's last token.
    """
    if not (takes_argument(model, "position_ids") and takes_argument(model, "cache")):
        return "its forward takes no positions or no cache"
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "alibi", False):
        return "its attention counts distances between columns (ALiBi)"
    kinds, settings = get_layer_types_and_kwargs(config)
    strange = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if strange:
        return f"it has layers of another kind than attention ({', '.join(strange)})"
    windows = [kind["sliding_window"] for kind in settings if kind.get("sliding_window")]
    if windows and min(windows) < longest:
        return f"its window of {min(windows)} tokens is shorter than the longest row ({longest})"
    return ""
