"""A model and its tokenizer by name: built-in, a folder, or a hub id."""

import inspect
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from kilotune import distributed
from kilotune.errors import KilotuneError
from kilotune.models.builtin import BUILTIN, builtin_folder
from kilotune.models.checkpoint import Checkpoint
from kilotune.models.gguf import gguf_folder, is_gguf
from kilotune.models.hub import (
    check_files,
    file_of,
    how_to_get,
    not_found,
    weight_files,
    weights_file,
)
from kilotune.models.integrity import (
    AGAIN,
    NOT_OF_THE_FILE,
    check_loaded,
    first_line,
    read_json,
    tensor_names,
)
from kilotune.models.positions import vocabulary
from kilotune.models.quantisation import load_quantised
from kilotune.models.qwen import (
    GENERATION,
    RANKS,
    QwenCheckpoint,
    check_qwen,
    first_generation,
    load_qwen,
    qwen_config,
    qwen_generation,
    qwen_tokenizer,
)
from kilotune.recipe.schema import ModelSettings, TuneSettings

# What a tokenizer may be in: the first ones, or where tokenizer.json is not there the others too.
TOKENIZER_SETTINGS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
TOKENIZER_FILES = (
    *TOKENIZER_SETTINGS, "tokenizer.model", "spiece.model", "vocab.json", "merges.txt",
    "vocab.txt", RANKS,
)  # fmt: skip
POOLER = "pooler"
# How torch says that a file of its own format cannot be read.
OF_TORCH_FILES = re.compile(r"PytorchStreamReader|UnpicklingError|EOFError")

Model = Any  # transformers.PreTrainedModel or peft.PeftModel; neither ships types


def locate(settings: ModelSettings) -> str:
    """The folder or hub id that `from_pretrained` takes for `settings.name`, checked to exist.

    Raises KilotuneError that says what is missing and where it was looked for.
    """
    name = settings.name
    folder = local_folder(name)
    source = str(folder) if folder else _without_its_code(name, "*.safetensors")
    try:
        load_config(source, settings)
    except (OSError, ValueError) as error:
        raise not_found(name, folder, error, BUILTIN) from error
    return source


def locate_tokenizer(settings: ModelSettings) -> str:
    """Where `load_tokenizer` finds the tokenizer of `settings.name`; no weights need be there."""
    folder = local_folder(settings.name)
    return str(folder) if folder else _without_its_code(settings.name)


def local_folder(name: str) -> Path | None:
    """The folder of a built-in model, of what a GGUF file holds, or of that name; None without."""
    if name in BUILTIN:
        return builtin_folder(name)
    if is_gguf(name):
        return gguf_folder(name)
    folder = Path(name).expanduser()
    return folder.resolve() if folder.is_dir() else None


def load_config(source: str, settings: ModelSettings) -> Any:
    """The configuration at `source`, as transformers returns it.

    That of a first-generation Qwen, which transformers has no class for, is the Qwen 2's that
    computes the same. Raises OSError where there is none, ValueError for a kind of model that is
    not known, and KilotuneError for one with broken values.
    """
    if file := first_generation(source):
        return qwen_config(file)
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # transformers' own, for every way a value can be wrong
        raise _broken_config(source, error) from error


def open_checkpoint(source: str) -> Checkpoint:
    """The tensors at `source` under the names of the model that `load_model` makes of them."""
    return QwenCheckpoint(source) if first_generation(source) else Checkpoint(source)


def check_weights(source: str, settings: ModelSettings) -> None:
    """Raise KilotuneError where the model at `source` is damaged, or not all there.

    Of its weights names, shapes and headers are looked at, and no tensor. What a hub can still
    give is not missing; what comes with code of its own, or quantised, is left to loading.
    """
    file = first_generation(source)
    if file is None:
        check_files(source)
    for part in weight_files(source):
        if part.suffix == ".safetensors":
            tensor_names(part)
    generation_stops(source)
    _check_vocabulary(source, settings)
    if file is None:
        _check_complete(source, settings)
    else:
        check_qwen(file.parent)


def load_tokenizer(source: str, settings: ModelSettings) -> Any:
    """The tokenizer at `source`, with a padding token.

    Raises KilotuneError when there is none, or when it has no token to end or pad with.
    """
    try:
        tokenizer = _own_tokenizer(source, settings)
    except (KilotuneError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # the readers' own, for every way a file can be broken
        raise _no_tokenizer(source, error) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise KilotuneError(
                "the tokenizer has neither a padding nor an end token",
                where=source,
                fix="Set eos_token in its tokenizer_config.json",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def generation_stops(source: str) -> tuple[int, ...]:
    """The tokens that the generation_config.json at `source` stops at; none without one."""
    generation = own_generation(source)
    return () if generation is None else _stops(generation, source)


def own_generation(source: str) -> GenerationConfig | None:
    """What the generation_config.json at `source` says; None without one.

    Raises KilotuneError for a broken one, which transformers would pass over.
    """
    if first_generation(source):
        return qwen_generation(Path(source))
    try:
        config = GenerationConfig.from_pretrained(source)
        _stops(config, source)
        return config
    except (KilotuneError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # transformers' own, for every way a value can be wrong
        if file := file_of(source, GENERATION):
            raise KilotuneError(
                f"cannot be read ({first_line(error)})",
                where=str(file),
                fix="Put back the one that came with the model, or remove it",
            ) from error
        return None


def _stops(config: GenerationConfig, source: str) -> tuple[int, ...]:
    ends = config.eos_token_id
    stops = tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    if any(isinstance(token, bool) or not isinstance(token, int) for token in stops):
        raise KilotuneError(
            f"eos_token_id is not a token id: {ends!r}",
            where=str(file_of(source, GENERATION) or source),
            fix="Write the id of the token that ends an answer, or a list of such ids",
        )
    return stops


def load_model(source: str, settings: ModelSettings, dtype: torch.dtype) -> Model:
    """The language model at `source` on this machine's best device, ready to generate.

    Raises KilotuneError for weights that are not all there.
    """
    if first_generation(source):
        return load_qwen(source, dtype, best_device())
    kind = model_kind(load_config(source, settings))
    if settings.quantization != "none":
        return load_quantised(kind, source, settings, dtype, best_device()).eval()
    trust = settings.trust_remote_code
    model = load_complete(kind, source, dtype=dtype, trust_remote_code=trust)
    return model.to(best_device()).eval()


def load_complete(kind: Any, source: str, *, unused: str = "", **how: Any) -> Model:
    """The model at `source` of transformers' class `kind`, loaded as `how` says.

    transformers fills what a checkpoint lacks with random numbers; here that is a KilotuneError,
    but for what no answer needs and has the name `unused`. Of processes that share one model the
    others are given theirs by the leader.
    """
    model, info = kind.from_pretrained(
        source, output_loading_info=True, ignore_mismatched_sizes=True, **how
    )
    if distributed.leads():
        check_loaded(info, str(weights_file(source) or source), unused)
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


def load_beside(kind: Any, source: str, what: str) -> tuple[Any, Any]:
    """Tokenizer and model, of transformers' class `kind`, of a model that is not the tuned one.

    `what` names it in the KilotuneError that is raised where there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        # Few encoders come with a pooler, and none is used.
        model = load_complete(kind, source, unused=POOLER).to(best_device()).eval()
    except (KilotuneError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # the readers' own, for every way a file can be broken
        raise KilotuneError(
            f"cannot read a {what}: {first_line(error)}",
            where=source,
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


def _own_tokenizer(source: str, settings: ModelSettings) -> Any:
    if not first_generation(source):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=settings.trust_remote_code)
    if (Path(source) / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(source)
    return qwen_tokenizer(Path(source) / RANKS)


def _check_complete(source: str, settings: ModelSettings) -> None:
    """Load the model with tensors that have shapes and no memory, and see what it lacks."""
    config = load_config(source, settings)
    own_code = settings.trust_remote_code and getattr(config, "auto_map", None)
    if own_code or getattr(config, "quantization_config", None):
        return
    try:
        load_complete(model_kind(config), source, device_map="meta")
    except (KilotuneError, OSError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # as of load_config, and whatever building a model can raise
        file = weights_file(source)
        if file and file.suffix == ".bin" and OF_TORCH_FILES.search(f"{type(error)} {error}"):
            raise KilotuneError("cut or damaged", where=str(file), fix=AGAIN) from error
        raise _broken_config(source, error) from error


def _check_vocabulary(source: str, settings: ModelSettings) -> None:
    """The tokens that every batch may hold are tokens of the model."""
    size = vocabulary(load_config(source, settings))
    tokenizer = load_tokenizer(source, settings)
    named = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
    beyond = [f"{name} is {id}" for name, id in named.items() if id is not None and id >= size]
    if size and beyond:
        raise KilotuneError(
            f"the model has {size} tokens, and the tokenizer's {' and its '.join(beyond)}",
            where=source,
            fix="Give the tokenizer that came with the model, or its config.json with the "
            "vocab_size that the weights have",
        )


def _broken_config(source: str, error: Exception) -> KilotuneError:
    return KilotuneError(
        f"transformers cannot build a model from it ({first_line(error)})",
        where=str(file_of(source, "config.json") or source),
        fix="Put back the config.json that the weights were saved with",
    )


def _no_tokenizer(source: str, error: Exception) -> KilotuneError:
    """Which of the tokenizer's files at `source` is broken, or that there is none."""
    files = [file for name in TOKENIZER_FILES if (file := file_of(source, name))]
    if files:
        broken = next((file for file in files if not _is_json(file)), files[0])
        return KilotuneError(
            f"the tokenizer cannot be read ({first_line(error)})",
            where=str(broken),
            fix="Put back the tokenizer's files as they came with the model",
        )
    return KilotuneError(
        "no tokenizer there, in no built-in model, and not on the hub or in its cache",
        where=source,
        fix=f"Built in: {', '.join(BUILTIN)}. Otherwise give a folder that holds "
        f"tokenizer.json and tokenizer_config.json, or qwen.tiktoken. {how_to_get(source)}",
    )


def _is_json(file: Path) -> bool:
    try:
        return file.suffix != ".json" or bool(read_json(file))
    except KilotuneError:
        return False


def _without_its_code(name: str, *more: str) -> str:
    """The hub id `name`; of a first-generation Qwen the folder of its files, its code left out.

    `more` are patterns of files that are wanted besides configuration and tokenizer.
    """
    try:
        if first_generation(hf_hub_download(name, "config.json")):
            return snapshot_download(name, allow_patterns=["*.json", RANKS, *more])
    except (OSError, ValueError):
        pass  # who looks for it next says what is missing
    return name
