"""Adapters merged into the weights they adapt, and written shard by shard as a plain checkpoint."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from kilotune import distributed
from kilotune.errors import KilotuneError, some
from kilotune.models.checkpoint import INDEX, WHOLE
from kilotune.models.pretrained import Model
from kilotune.models.sharding import whole

# Bytes of a shard: so much is in memory besides the model.
SHARD = 2_000_000_000
# A name as far as the number of its layer.
LAYER = re.compile(r"^.+?\.\d+\.")


def write_merged(model: Model, out: Path, shard: int = SHARD) -> None:
    """Write `model` (a PeftModel of LoRA or DoRA) with its adapters merged into the folder `out`.

    Tensors have the names and the layout of published checkpoints, which may be others than in
    memory: towers by their own names, experts one by one. Every process of several must call it,
    as a sharded model is whole in none; one writes. Weights are summed in float32 and written in
    their own type, at most `shard` bytes a file unless one layer is larger; `model` stays as it is.
    Raises KilotuneError for other adapters.
    """
    _check_plain(model)
    base = model.get_base_model()
    shards = list(_shards(_units(base), shard))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        single = len(shards) == 1
        file = WHOLE if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: merged_weight(base, name) for name in names}
        if distributed.leads():
            published = _published(base, tensors)
            save_file(published, out / file, {"format": "pt"})
            places |= dict.fromkeys(published, file)
    if not distributed.leads():
        return
    if len(shards) > 1:
        total = sum(tensor.nbytes for tensor in _tensors(base).values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
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


def _tensors(base: Model) -> dict[str, torch.Tensor]:
    """The tensors of the model without adapters, by name and without memory, tied ones left out."""
    tied = set(getattr(base, "all_tied_weights_keys", None) or {})
    named = {
        name.replace(".base_layer.", "."): torch.empty(
            tensor.shape, dtype=tensor.dtype, device="meta"
        )
        for name, tensor in base.state_dict().items()
        if ".lora_" not in name
    }
    return {name: tensor for name, tensor in named.items() if name not in tied}


def _published(base: Model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors` as `base` would be saved: transformers reverts what it changed in loading."""
    found = revert_weight_conversion(base, tensors)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _units(base: Model) -> dict[tuple[str, ...], int]:
    """Names that are written together, such as a layer's, and the bytes of their tensors.

    Of one layer's tensors several may become one or one several; where it is so across layers,
    which shows without their numbers, all are a unit.
    """
    tensors = _tensors(base)
    by_layer: dict[str, list[str]] = {}
    for name in tensors:
        layer = LAYER.match(name)
        by_layer.setdefault(layer[0] if layer else name, []).append(name)
    apart: dict[str, torch.Tensor] = {}
    for names in by_layer.values():
        apart |= _published(base, {name: tensors[name] for name in names})
    together = {name: tensor.shape for name, tensor in _published(base, dict(tensors)).items()}
    if {name: tensor.shape for name, tensor in apart.items()} != together:
        by_layer = {"": list(tensors)}
    return {
        tuple(names): sum(tensors[name].nbytes for name in names) for names in by_layer.values()
    }


def _shards(sizes: dict[tuple[str, ...], int], most: int) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for unit, size in sizes.items():
        if names and held + size > most:
            yield names
            names, held = [], 0
        names.extend(unit)
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
