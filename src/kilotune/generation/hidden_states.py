"""What a model makes of prompts inside: hidden states as features of a classifier."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kilotune.generation.decoding import TOKEN_BUDGET, inputs_of
from kilotune.generation.padding import batches
from kilotune.generation.prefix import NONE, shared_prefix
from kilotune.generation.prompts import Prompts
from kilotune.models.answering import answering
from kilotune.models.pretrained import Model, decoder_layers, takes_argument
from kilotune.progress import Progress

Pooling = Literal["last", "mean"]
# The number of decoder layers below a state, and which of a prompt's tokens it is of.
StatesOf = tuple[int, Pooling]
# Layers that are looked at, from the top down: the lower half of a model knows words, not texts.
DEPTHS = (1.0, 0.9, 0.8, 0.65, 0.5)


def places(model: Model) -> list[StatesOf]:
    """Which states `hidden_states` can give: some layers, of each the last token and the mean."""
    total = len(decoder_layers(model)[1])
    layers = dict.fromkeys(max(1, round(depth * total)) for depth in DEPTHS)
    return [(layer, pooling) for layer in layers for pooling in ("last", "mean")]


def hidden_states(
    model: Model,
    prompts: Prompts,
    wanted: Sequence[StatesOf],
    *,
    skip: int,
    pad_id: int,
    progress: Progress,
) -> dict[StatesOf, NDArray[np.float32]]:
    """The states of each prompt, of shape (prompts, width), by where they are taken.

    They are taken behind the layer, before the model's last norm. The mean leaves out a prompt's
    first `skip` tokens (its last one is never left out), so that it is the same whatever prompts
    are beside it. What all prompts begin with, up to there, is computed once.
    """
    width = model.config.get_text_config(decoder=True).hidden_size
    found = {place: np.zeros((len(prompts), width), np.float32) for place in wanted}
    one = {"logits_to_keep": 1} if takes_argument(model, "logits_to_keep") else {}
    # Where images stand is the model's own to count.
    placed = takes_argument(model, "position_ids") and not prompts.pictured
    layers = sorted({layer for layer, _ in wanted})
    with (
        torch.inference_mode(),
        answering(model),
        _watched(model, layers) as states,
        progress.bar("hidden states", len(prompts)) as bar,
    ):
        prefix = NONE if prompts.pictured else shared_prefix(model, prompts.token_ids, 0, skip)
        for rows in batches(prompts.token_ids, TOKEN_BUDGET):
            inputs = inputs_of(model, prompts.of(rows), pad_id, prefix)
            own = _behind(inputs["attention_mask"], skip)[:, len(prefix) :, None]
            inputs["input_ids"] = inputs["input_ids"][:, len(prefix) :]
            more: dict[str, Any] = {"cache": prefix.cache(len(rows))} if prefix else {}
            if placed:
                more["position_ids"] = _positions(inputs)
            model(**inputs, **one, **more, use_cache=bool(prefix))
            for place in wanted:
                found[place][rows] = _pooled(states[place[0]], own, place[1]).cpu().numpy()
            bar.advance(len(rows))
    return found


def _behind(mask: torch.Tensor, skip: int) -> torch.Tensor:
    """Which tokens of each row are behind its first `skip`; the last one is."""
    own = (mask.cumsum(dim=1) > skip) & mask.bool()
    own[:, -1] = True
    return own


def _positions(inputs: dict[str, Any]) -> torch.Tensor:
    """Of a padded batch behind a prefix: each token's place among those of its row."""
    width = inputs["input_ids"].shape[1]
    counted = inputs["attention_mask"].cumsum(dim=1) - 1
    return counted.clamp(min=0)[:, -width:]


def _pooled(states: torch.Tensor, own: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector a row, of states of shape (rows, tokens, width); rows are padded on the left."""
    if pooling == "last":
        return states[:, -1].float()
    return (states.float() * own).sum(dim=1) / own.sum(dim=1).clamp(min=1)


@contextmanager
def _watched(model: Model, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """What each of `layers`, counted from 1, last gave."""
    last: dict[int, torch.Tensor] = {}

    def watch(layer: int, module: torch.nn.Module) -> Any:
        def keep(_: Any, __: Any, output: Any) -> None:
            last[layer] = output[0] if isinstance(output, tuple) else output

        return module.register_forward_hook(keep)

    modules = decoder_layers(model)[1]
    handles = [watch(layer, modules[layer - 1]) for layer in layers]
    try:
        yield last
    finally:
        for handle in handles:
            handle.remove()
