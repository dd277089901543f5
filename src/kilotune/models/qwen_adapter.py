"""An adapter of the Qwen 2 that kilotune tunes, under the names of the first-generation Qwen.

Query, key and value have an adapter each, and are rows of one matrix there. Their joint update is
again low-rank, and exactly so: the A's lie below each other and the B's on a block diagonal, so
that the rank of `c_attn` is the sum of theirs, with alpha raised alike.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from kilotune.errors import KilotuneError, some
from kilotune.models.qwen import LAYER

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
FUSED = "attn.c_attn"

NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_([AB])\.weight")

# Adapters by layer, then by Qwen 2's module, then A and B.
Adapters = dict[int, dict[str, dict[str, torch.Tensor]]]


def write_qwen_adapter(adapter: Path, base: str, out: Path) -> None:
    """Write the LoRA in the folder `adapter` into the folder `out` for Qwen's own code at `base`.

    The update of every weight is the same, exactly. Raises KilotuneError for what is no plain LoRA
    of a first-generation Qwen.
    """
    settings = json.loads((adapter / SETTINGS).read_text(encoding="utf-8"))
    tensors = load_file(adapter / WEIGHTS)
    _check_plain(settings, tensors, adapter)
    modules = _by_layer(tensors)
    renamed = {}
    for layer, adapters in modules.items():
        for origin, pair in qwen_adapters(adapters).items():
            for side, tensor in pair.items():
                name = f"base_model.model.transformer.h.{layer}.{origin}.lora_{side}.weight"
                renamed[name] = tensor
    save_file(renamed, out / WEIGHTS, {"format": "pt"})
    written = _settings(settings, set(next(iter(modules.values()))), base)
    (out / SETTINGS).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def qwen_adapters(
    adapters: dict[str, dict[str, torch.Tensor]],
) -> dict[str, dict[str, torch.Tensor]]:
    """A layer's A (rank, inputs) and B (outputs, rank) by Qwen 2's modules, by Qwen's modules.

    Thirds of `c_attn` that have no adapter stay zero.
    """
    result = {}
    thirds: dict[int, dict[str, torch.Tensor]] = {}
    for module, pair in adapters.items():
        origin, third = LAYER[module]
        if third is None:
            result[origin] = {side: tensor.contiguous() for side, tensor in pair.items()}
        else:
            thirds[third] = pair
    if thirds:
        pairs = [thirds[third] for third in sorted(thirds)]
        # A third without an adapter is as one of no rank.
        ups = [thirds[n]["B"] if n in thirds else pairs[0]["B"][:, :0] for n in range(3)]
        up: torch.Tensor = torch.block_diag(*ups)  # type: ignore[no-untyped-call]
        result[FUSED] = {"A": torch.cat([pair["A"] for pair in pairs]), "B": up}
    return result


def _by_layer(tensors: dict[str, torch.Tensor]) -> Adapters:
    modules: Adapters = {}
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            layer, module, side = match.groups()
            modules.setdefault(int(layer), {}).setdefault(module, {})[side] = tensor
    return modules


def _settings(settings: dict[str, Any], modules: set[str], base: str) -> dict[str, Any]:
    """PEFT's settings of the adapter under Qwen's names."""
    origins = [LAYER[module][0] for module in modules]
    fused = origins.count(FUSED)
    wider = fused > 1
    return {
        **settings,
        "base_model_name_or_path": base,
        "target_modules": sorted(set(origins)),
        "layers_pattern": ["h"] if settings.get("layers_to_transform") is not None else None,
        "rank_pattern": {FUSED: fused * settings["r"]} if wider else {},
        "alpha_pattern": {FUSED: fused * settings["lora_alpha"]} if wider else {},
    }


def _check_plain(settings: dict[str, Any], tensors: dict[str, torch.Tensor], adapter: Path) -> None:
    other = [
        name
        for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
        if settings.get(name)
    ]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        other.append(str(settings.get("peft_type")))
    names = (NAME.fullmatch(name) for name in tensors)
    strange = [n for n, m in zip(tensors, names, strict=True) if not m or m.group(2) not in LAYER]
    if other or strange or not tensors:
        raise KilotuneError(
            f"only plain LoRA adapters of a first-generation Qwen have a form under its own names,"
            f" and this has {some([*other, *strange]) or 'none'}",
            where=str(adapter),
            fix="Export it merged instead: --to merged",
        )
