"""Frozen weights in 4 or 8 bits, by bitsandbytes.

QLoRA (Dettmers et al. 2023) and LLM.int8() (Dettmers et al. 2022).
"""

from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from kilotune.errors import KilotuneError
from kilotune.models.hub import weights_file
from kilotune.models.integrity import check_loaded
from kilotune.recipe.schema import ModelSettings, TuneSettings

Model = Any  # transformers.PreTrainedModel, which ships no types


def check_quantised(tune: TuneSettings) -> None:
    """Raise KilotuneError where quantised weights cannot be tuned as asked."""
    if not tune.adapters_alone:
        raise _refusal(
            "quantised weights cannot be trained themselves",
            "Set tune.method=lora or dora without tune.trainable",
        )
    if tune.streaming == "always":
        raise _refusal("quantised layers cannot be streamed", "Set tune.streaming=never")


def check_installed(settings: ModelSettings) -> None:
    """Raise KilotuneError where this machine has not got what the model's settings need."""
    if settings.quantization != "none" and find_spec("bitsandbytes") is None:
        raise _refusal("bitsandbytes is not installed", "pip install 'kilotune[quantization]'")


def load_quantised(
    kind: Any, place: str, settings: ModelSettings, dtype: torch.dtype, device: torch.device
) -> Model:
    """The model at `place` of the class `kind`, its linear layers but the head quantised.

    Products are done in `dtype`. Raises KilotuneError where this machine cannot.
    """
    nf4 = settings.quantization == "nf4"
    config = BitsAndBytesConfig(
        load_in_4bit=nf4,
        load_in_8bit=not nf4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    try:
        model, info = kind.from_pretrained(
            place,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=dtype,
            quantization_config=config,
            device_map={"": device},
            trust_remote_code=settings.trust_remote_code,
        )
    except torch.OutOfMemoryError:
        raise  # it does, and there is no room
    except (ImportError, RuntimeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise _refusal(
            f"bitsandbytes does not quantise on {device.type} here ({said})",
            "Set model.quantization=none, or use a device that it supports",
        ) from error
    check_loaded(info, str(weights_file(place) or place))
    for module in model.modules():
        # Or the first answer on such a processor repacks the frozen weights, with coarser scales.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def quantised(model: Model) -> bool:
    """Whether any weights of `model` are held in 4 or 8 bits."""
    return any(p.dtype in (torch.uint8, torch.int8) for p in model.parameters())


def elements(parameter: torch.Tensor) -> int:
    """How many numbers `parameter` stands for; in 4 bits it holds two a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _refusal(what: str, fix: str) -> KilotuneError:
    return KilotuneError(what, where="model.quantization", fix=fix)
