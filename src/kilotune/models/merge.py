"""Adapters merged into the weights they adapt, and written shard by shard as a plain checkpoint."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from safetensors.torch import save_file

from kilotune import distributed
from kilotune.errors import KilotuneError, some
from kilotune.models.checkpoint import INDEX, WHOLE
from kilotune.models.pretrained import Model
from kilotune.models.sharding import whole

# Bytes of a shard: so much is in memory besides the model.
SHARD = 2_000_000_000


def write_merged(model: Model, out: Path, shard: int = SHARD) -> None:
    """Write `model` (a PeftModel of LoRA or DoRA) with its adapters merged into the folder `out`.

    Every process of several must call it, as a sharded model is whole in none; one writes.
    Weights are summed in float32 and written in their own type, at most `shard` bytes a file
    unless one tensor is larger; `model` stays as it is. Raises KilotuneError for other adapters.
    """
    _check_plain(model)
    base = model.get_base_model()
    shards = list(_shards(_sizes(base), shard))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        single = len(shards) == 1
        file = WHOLE if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: merged_weight(base, name) for name in names}
        if distributed.leads():
            save_file(tensors, out / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    if not distributed.leads():
        return
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(_sizes(base).values())}, "weight_map": places}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config = copy.deepcopy(base.config)
    config.architectures, config.dtype = [type(base).__name__], base.dtype
    config.save_pretrained(out)


def merged_weight(base: Model, name: str) -> torch.Tensor:
    """The tensor called `name` in the model without adapters, with what adapters add to it."""
    path, _, kind = name.rpartition(".")
    module = base.get_submodule(path)
    adapted = isinstance(module, LoraLayer)
    weight: torch.Tensor = _values(module.get_base_layer() if adapted else module)[kind].detach()
    if adapted and kind == "weight":
        total = weight.float()
        for adapter in module.active_adapters:
            total = total + module.get_delta_weight(adapter).detach().float()
            if adapter in module.lora_variant:
                total = _at_length(total, module, adapter)
        weight = total.to(weight.dtype)
    return whole(weight).cpu().contiguous()


def _at_length(weight: torch.Tensor, module: Any, adapter: str) -> torch.Tensor:
    """`weight` with the rows, each of one output, as long as DoRA's magnitudes say."""
    outputs = 1 if module.fan_in_fan_out else 0
    lengths = torch.linalg.norm(weight, dim=1 - outputs)
    factor = module.lora_magnitude_vector[adapter].weight.detach().float() / lengths
    return weight * factor.unsqueeze(1 - outputs)


def _values(module: torch.nn.Module) -> dict[str, Any]:
    return {
        **dict(module.named_buffers(recurse=False)),
        **dict(module.named_parameters(recurse=False)),
    }


def _sizes(base: Model) -> dict[str, int]:
    """Bytes of each tensor of the model without adapters, tied ones left out."""
    tied = set(getattr(base, "all_tied_weights_keys", None) or {})
    names = {
        name.replace(".base_layer.", "."): tensor.nbytes
        for name, tensor in base.state_dict().items()
        if ".lora_" not in name
    }
    return {name: size for name, size in names.items() if name not in tied}


def _shards(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, size in sizes.items():
        if names and held + size > most:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names


def _check_plain(model: Model) -> None:
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    other = [
        name
        for name, layer in layers
        if any(layer.lora_bias.values())
        or not all(isinstance(v, DoraLinearVariant) for v in layer.lora_variant.values())
        or (layer.lora_variant and len(layer.active_adapters) > 1)
    ]
    if other:
        raise KilotuneError(
            f"adapters that are no plain LoRA or DoRA cannot be merged: {some(other)}",
            where=type(model.get_base_model()).__name__,
            fix="Export the adapter itself: --to adapter",
        )
