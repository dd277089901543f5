"""Low-rank adapters through PEFT (Hu et al. 2021)."""

import torch
from peft import LoraConfig, get_peft_model

from kilotune.errors import KilotuneError, some
from kilotune.models.load import Model, decoder_layers, layer_count
from kilotune.recipe.schema import Layers, LoraSettings


def attach_lora(model: Model, settings: LoraSettings, seed: int) -> Model:
    """Wrap `model` with fresh float32 adapters; every other parameter is frozen.

    Raises KilotuneError for a target that matches no linear layer.
    """
    targets = chosen_targets(settings, linear_names(model))
    list_name, _ = decoder_layers(model)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        layers_to_transform=layer_indices(settings.layers, layer_count(model)),
        # Without the pattern a vision tower's blocks of the same number would match too.
        layers_pattern=list_name.rpartition(".")[2],
        task_type="CAUSAL_LM",
    )
    # PEFT draws A from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, config)


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
    # GPT-2's Conv1D is a linear layer too, and PEFT adapts it.
    linear = (torch.nn.Linear, _conv1d())
    modules = layers[-1].named_modules()  # the first ones may be streamed, and show none
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


def _conv1d() -> type[torch.nn.Module]:
    from transformers.pytorch_utils import Conv1D

    return Conv1D
