"""Low-rank adapters through PEFT (Hu et al. 2021; DoRA, Liu et al. 2024)."""

import re
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from kilotune.errors import KilotuneError, some
from kilotune.models.pretrained import Model, decoder_layers, layer_count, sees_images
from kilotune.models.vision import linears_of
from kilotune.recipe.schema import Layers, LoraSettings


def attach_lora(model: Model, settings: LoraSettings, seed: int) -> Model:
    """Wrap `model` with fresh float32 adapters; every other parameter is frozen.

    Raises KilotuneError for a target that matches no linear layer.
    """
    targets = chosen_targets(settings, linear_names(model))
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_dora=settings.method == "dora",
        task_type="CAUSAL_LM",
        **_places(model, settings, targets),
    )
    # PEFT draws A from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def _places(model: Model, settings: LoraSettings, targets: list[str]) -> dict[str, Any]:
    """Which modules get adapters, in PEFT's words.

    By names and numbers of layers; beside a vision tower, whose modules may have the same names,
    by a pattern of whole names. Raises KilotuneError for parts that the model does not have.
    """
    list_name, _ = decoder_layers(model)
    indices = layer_indices(settings.layers, layer_count(model))
    more = [
        name for part in settings.parts if part != "language" for name in linears_of(model, part)
    ]
    if not sees_images(model.config):
        return {
            "target_modules": targets,
            "layers_to_transform": indices,
            "layers_pattern": list_name.rpartition(".")[2],
        }
    numbers, names = "|".join(map(str, indices)), "|".join(map(re.escape, targets))
    language = rf"{re.escape(list_name)}\.({numbers})\.(.+\.)?({names})"
    # Blocks by any number, so that the saved pattern stays short; not the last part of a name,
    # which may number other things than linear layers.
    patterns = [re.sub(r"\\\.\d+(?=\\)", r"\\.\\d+", re.escape(name)) for name in more]
    if "language" in settings.parts:
        patterns.insert(0, language)
    return {"target_modules": "|".join(dict.fromkeys(patterns))}


def chosen_targets(settings: LoraSettings, available: list[str]) -> list[str]:
    """The names among `available` that get adapters; raises KilotuneError for any other."""
    wanted = settings.target_modules
    targets = available if wanted == "all-linear" else list(wanted)
    missing = [name for name in targets if name not in available]
    if missing:
        raise KilotuneError(
            f"no linear layer called {some(missing)}",
            where="tune.target_modules",
            fix=f"This model has: {', '.join(available)}",
        )
    return targets


def linear_names(model: Model) -> list[str]:
    """The last names of the linear layers inside the decoder layers, such as `q_proj`."""
    _, layers = decoder_layers(model)
    # Layers may differ, as where attention is of several kinds; streamed ones show none.
    modules = (named for layer in layers for named in layer.named_modules())
    linear = linear_classes()
    return list(dict.fromkeys(n.rpartition(".")[2] for n, m in modules if isinstance(m, linear)))


def layer_indices(layers: Layers, total: int) -> list[int]:
    """`all`, `top:K` or a list, as layer numbers from 0; raises KilotuneError beyond `total`."""
    if layers == "all":
        return list(range(total))
    if isinstance(layers, str):
        top = int(layers.removeprefix("top:"))
        chosen = list(range(total - top, total))
    else:
        chosen = list(layers)
    if not chosen or min(chosen) < 0 or max(chosen) >= total:
        raise KilotuneError(
            f"the model has {total} layers, not {layers}",
            where="tune.layers",
            fix=f"Choose at most top:{total}",
        )
    return chosen


def linear_classes() -> tuple[type[torch.nn.Module], ...]:
    """What PEFT puts adapters on: GPT-2's Conv1D is a linear layer too."""
    from transformers.pytorch_utils import Conv1D

    return torch.nn.Linear, Conv1D
