"""Pretrained models in memory: loaded whole, and what their modules and types are."""

import inspect
from itertools import takewhile
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from kilotune import distributed
from kilotune.errors import KilotuneError
from kilotune.models.hub import weights_file
from kilotune.models.integrity import NOT_OF_THE_FILE, check_loaded, first_line
from kilotune.recipe.schema import TuneSettings

POOLER = "pooler"
Model = Any  # transformers.PreTrainedModel or peft.PeftModel; neither ships types


def load_complete(kind: Any, place: str, *, unused: str = "", **how: Any) -> Model:
    """The model at `place` of transformers' class `kind`, loaded as `how` says.

    transformers fills what a checkpoint lacks with random numbers; here that is a KilotuneError,
    but for what no answer needs and has the name `unused`. Of processes that share one model the
    others are given theirs by the leader.
    """
    model, info = kind.from_pretrained(
        place, output_loading_info=True, ignore_mismatched_sizes=True, **how
    )
    if distributed.leads():
        check_loaded(info, str(weights_file(place) or place), unused)
    return model


def sees_images(config: Any) -> bool:
    """Whether a model of `config` takes images."""
    return hasattr(config, "vision_config")


def model_kind(config: Any) -> Any:
    """The class of transformers that builds a model of `config`: of texts, or of images too."""
    return AutoModelForImageTextToText if sees_images(config) else AutoModelForCausalLM


def best_device() -> torch.device:
    """CUDA where there is any, then Apple's, then the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", distributed.local_rank())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def load_beside(kind: Any, place: str, what: str) -> tuple[Any, Any]:
    """Tokenizer and model, of transformers' class `kind`, of a model that is not the tuned one.

    `what` names it in the KilotuneError that is raised where there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(place)
        # Few encoders come with a pooler, and none is used.
        model = load_complete(kind, place, unused=POOLER).to(best_device()).eval()
    except (KilotuneError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # the readers' own, for every way a file can be broken
        raise KilotuneError(
            f"cannot read a {what}: {first_line(error)}",
            where=place,
            fix="Give the folder or the hub id of one",
        ) from error
    return tokenizer, model


def compute_dtype(precision: str) -> torch.dtype:
    """The type that matrix products are done in; `auto` is bfloat16 where the hardware has it."""
    if precision != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[precision]
    device = best_device().type
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def weight_dtype(tune: TuneSettings, compute: torch.dtype) -> torch.dtype:
    """The type that the weights are held in.

    Adapters are float32 beside weights of any type. Weights trained themselves must be float32:
    a step of 1e-5 is lost in bfloat16's 8 bits; autocast then does the products.
    """
    return compute if tune.adapters_alone else torch.float32


def decoder_layers(model: Model) -> tuple[str, Any]:
    """The name and the list of a model's decoder layers (`model.layers` in most families).

    A vision tower may have as many: the decoder's are those beside the token embeddings.
    """
    size, embedding = layer_count(model), model.get_input_embeddings()
    home: list[str] = []
    found: list[tuple[str, Any]] = []
    for name, module in model.named_modules():
        if module is embedding:
            home = name.split(".")
        elif isinstance(module, torch.nn.ModuleList) and len(module) == size:
            found.append((name, module))
    if found:
        return max(found, key=lambda named: _shared(named[0].split("."), home))
    raise KilotuneError(
        "cannot find the decoder layers",
        where=type(model).__name__,
        fix="Tune all layers, or use a model whose layers are one list",
    )


def _shared(path: list[str], other: list[str]) -> int:
    """How many first parts two paths of modules have in common."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False))
    )


def layer_count(model: Model) -> int:
    """How many decoder layers the model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def takes_argument(model: Model, name: str) -> bool:
    """Whether the model's own forward has the keyword argument `name`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(inner.forward).parameters


def stop_ids(model: Model, template_stop: int) -> list[int]:
    """The tokens that end generation: the template's own first, then the model's."""
    own = model.generation_config.eos_token_id
    more = own if isinstance(own, list) else [own]
    return list(dict.fromkeys([template_stop, *(i for i in more if i is not None)]))
