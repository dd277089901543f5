"""Where a model is, and what can be had there: built-in, a folder, a GGUF file, or a hub id."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from kilotune.errors import KilotuneError
from kilotune.models.builtin import BUILTIN, builtin_folder
from kilotune.models.checkpoint import Checkpoint, checkpoint_folder, indexed_files
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
    first_line,
    read_json,
    tensor_names,
)
from kilotune.models.positions import vocabulary
from kilotune.models.pretrained import (
    Model,
    best_device,
    load_complete,
    model_kind,
    sees_images,
)
from kilotune.models.quantisation import check_quantised, load_quantised
from kilotune.models.qwen import (
    CONFIG,
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
# How torch says that a file of its own format cannot be read.
OF_TORCH_FILES = re.compile(r"PytorchStreamReader|UnpicklingError|EOFError")


@dataclass(frozen=True)
class Source:
    """A model that transformers reads: a folder or a hub id, and the settings to read it with.

    `config_file` is a config.json by itself, read instead of that of `place`.
    """

    place: str
    settings: ModelSettings
    config_file: Path | None = None

    # Whether a loaded model's tensors have other names than those of its checkpoint.
    renamed: ClassVar[bool] = False

    @cached_property
    def config(self) -> Any:
        """The model's configuration, as transformers returns it; read once, not to be changed.

        Raises OSError where there is none, ValueError for a kind of model that is not known, and
        KilotuneError for one with broken values.
        """
        place, trust = str(self.config_file or self.place), self.settings.trust_remote_code
        try:
            return AutoConfig.from_pretrained(place, trust_remote_code=trust)
        except (OSError, ValueError, *NOT_OF_THE_FILE):
            raise
        except Exception as error:  # transformers' own, for every way a value can be wrong
            raise self._broken_config(error) from error

    @property
    def sees_images(self) -> bool:
        """Whether the model takes images. Raises what `config` does."""
        return sees_images(self.config)

    @property
    def has_tokenizer(self) -> bool:
        """Whether any of a tokenizer's files is there; of a hub id that is taken for granted."""
        folder = Path(self.place)
        return not folder.is_dir() or any((folder / name).is_file() for name in TOKENIZER_FILES)

    @property
    def streamable(self) -> bool:
        """Whether single layers can be read from the checkpoint."""
        return indexed_files(checkpoint_folder(self.place)) is not None

    def tokenizer(self) -> Any:
        """The tokenizer, with a padding token.

        Raises KilotuneError when there is none, or when it has no token to end or pad with.
        """
        try:
            tokenizer = self._read_tokenizer()
        except (KilotuneError, *NOT_OF_THE_FILE):
            raise
        except Exception as error:  # the readers' own, for every way a file can be broken
            raise _no_tokenizer(self.place, error) from error
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token is None:
                raise KilotuneError(
                    "the tokenizer has neither a padding nor an end token",
                    where=self.place,
                    fix="Set eos_token in its tokenizer_config.json",
                )
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def generation(self) -> GenerationConfig | None:
        """What generation_config.json says; None without one. Raises KilotuneError if broken."""
        return read_generation(self.place)

    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that generation_config.json stops at; none without one."""
        generation = self.generation()
        return () if generation is None else _stops(generation, self.place)

    def checkpoint(self) -> Checkpoint:
        """The tensors under the names of the model that `model` makes of them."""
        return Checkpoint(self.place)

    def weight_files(self) -> list[Path]:
        """The files that hold the weights, as far as they are there."""
        return weight_files(self.place)

    def model(self, dtype: torch.dtype) -> Model:
        """The language model on this machine's best device, ready to generate.

        Raises KilotuneError for weights that are not all there.
        """
        kind, settings = model_kind(self.config), self.settings
        if settings.quantization != "none":
            return load_quantised(kind, self.place, settings, dtype, best_device()).eval()
        trust = settings.trust_remote_code
        model = load_complete(kind, self.place, dtype=dtype, trust_remote_code=trust)
        return model.to(best_device()).eval()

    def check_weights(self) -> None:
        """Raise KilotuneError where the model is damaged, or not all there.

        Of its weights names, shapes and headers are looked at, and no tensor. What a hub can still
        give is not missing; what comes with code of its own, or quantised, is left to loading.
        """
        self._check_files()
        for part in self.weight_files():
            if part.suffix == ".safetensors":
                tensor_names(part)
        self.stop_ids()
        self._check_vocabulary()
        self._check_complete()

    def check_quantisable(self, tune: TuneSettings) -> None:
        """Raise KilotuneError where the model cannot be tuned quantised as its settings ask."""
        if self.settings.quantization != "none":
            check_quantised(tune)

    def _read_tokenizer(self) -> Any:
        trust = self.settings.trust_remote_code
        return AutoTokenizer.from_pretrained(self.place, trust_remote_code=trust)

    def _check_files(self) -> None:
        check_files(self.place)

    def _check_vocabulary(self) -> None:
        """The tokens that every batch may hold are tokens of the model."""
        size = vocabulary(self.config)
        tokenizer = self.tokenizer()
        named = {"pad_token": tokenizer.pad_token_id, "eos_token": tokenizer.eos_token_id}
        beyond = [f"{name} is {id}" for name, id in named.items() if id is not None and id >= size]
        if size and beyond:
            raise KilotuneError(
                f"the model has {size} tokens, and the tokenizer's {' and its '.join(beyond)}",
                where=self.place,
                fix="Give the tokenizer that came with the model, or its config.json with the "
                "vocab_size that the weights have",
            )

    def _check_complete(self) -> None:
        """Load the model with tensors that have shapes and no memory, and see what it lacks."""
        own_code = self.settings.trust_remote_code and getattr(self.config, "auto_map", None)
        if own_code or getattr(self.config, "quantization_config", None):
            return
        try:
            load_complete(model_kind(self.config), self.place, device_map="meta")
        except (KilotuneError, OSError, *NOT_OF_THE_FILE):
            raise
        except Exception as error:  # as of `config`, and whatever building a model can raise
            file = weights_file(self.place)
            if file and file.suffix == ".bin" and OF_TORCH_FILES.search(f"{type(error)} {error}"):
                raise KilotuneError("cut or damaged", where=str(file), fix=AGAIN) from error
            raise self._broken_config(error) from error

    def _broken_config(self, error: Exception) -> KilotuneError:
        return KilotuneError(
            f"transformers cannot build a model from it ({first_line(error)})",
            where=str(self.config_file or file_of(self.place, CONFIG) or self.place),
            fix="Put back the config.json that the weights were saved with",
        )


class FirstQwen(Source):
    """A first-generation Qwen in a folder, which transformers has no class for.

    It is the Qwen 2 that computes the same; none of the code that comes with it is run.
    """

    renamed = True

    @cached_property
    def config(self) -> Any:
        """That of the Qwen 2. Raises KilotuneError for a variant that is not supported."""
        return qwen_config(self.config_file or Path(self.place) / CONFIG)

    @property
    def streamable(self) -> bool:
        """Its shards need no index."""
        return True

    def generation(self) -> GenerationConfig:
        """What generation_config.json says, stopping where Qwen's own code stops."""
        return qwen_generation(Path(self.place))

    def checkpoint(self) -> Checkpoint:
        """The tensors under Qwen 2's names."""
        return QwenCheckpoint(self.place)

    def weight_files(self) -> list[Path]:
        """The files that hold the weights; without an index, all safetensors of the folder."""
        return super().weight_files() or sorted(Path(self.place).glob("*.safetensors"))

    def model(self, dtype: torch.dtype) -> Model:
        """The Qwen 2 on this machine's best device, ready to generate."""
        return load_qwen(self.place, dtype, best_device())

    def check_quantisable(self, tune: TuneSettings) -> None:
        """Raise KilotuneError where its settings ask for quantised weights."""
        if self.settings.quantization != "none":
            raise KilotuneError(
                "a first-generation Qwen is not quantised",
                where="model.quantization",
                fix="Set model.quantization=none",
            )

    def _read_tokenizer(self) -> Any:
        if (Path(self.place) / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(self.place)
        return qwen_tokenizer(Path(self.place) / RANKS)

    def _check_files(self) -> None:
        """Its shards need no index; whether all are there is seen with their tensors."""

    def _check_complete(self) -> None:
        check_qwen(Path(self.place))


def locate(settings: ModelSettings) -> Source:
    """The model `settings.name`, checked to exist.

    Raises KilotuneError that says what is missing and where it was looked for.
    """
    source = _found(settings, "*.safetensors")
    if source.config_file is not None:
        if source.config_file.name != CONFIG:  # the weights would be loaded by the folder's own
            raise KilotuneError(
                "a configuration alone, and a run needs weights",
                where=settings.name,
                fix=f"Give the folder of the model, with this file as its {CONFIG}",
            )
        source = replace(source, config_file=None)
    try:
        source.config  # noqa: B018 (read, and kept)
    except (OSError, ValueError) as error:
        raise not_found(settings.name, local_folder(settings.name), error, BUILTIN) from error
    return source


def locate_tokenizer(settings: ModelSettings) -> Source:
    """The model `settings.name` for its tokenizer; neither weights nor configuration need be there.

    Whether there is a tokenizer is seen when it is read.
    """
    return _found(settings)


def locate_config(settings: ModelSettings) -> Source:
    """The model `settings.name`, or a config.json by itself; no weights need be there.

    Raises KilotuneError when there is no configuration, or none that can be understood without
    running the code that comes with it.
    """
    source = _found(settings)
    try:
        source.config  # noqa: B018 (read, and kept)
    except (OSError, ValueError) as error:
        if not Path(settings.name).expanduser().exists():
            raise not_found(settings.name, None, error, BUILTIN) from error
        raise KilotuneError(
            "no config.json that transformers understands",
            where=settings.name,
            fix="Give a folder that holds a config.json, that file itself, or a hub id",
        ) from error
    return source


def source_at(place: str | Path, settings: ModelSettings | None = None) -> Source:
    """What is at `place`: a folder, a config.json, which stands for its folder, or a hub id."""
    path = Path(place)
    file = path if path.suffix == ".json" and path.is_file() else None
    kind = FirstQwen if first_generation(place) else Source
    return kind(str(file.parent if file else place), settings or ModelSettings(), file)


def local_folder(name: str) -> Path | None:
    """The folder of a built-in model, of what a GGUF file holds, or of that name; None without."""
    if name in BUILTIN:
        return builtin_folder(name)
    if is_gguf(name):
        return gguf_folder(name)
    folder = Path(name).expanduser()
    return folder.resolve() if folder.is_dir() else None


def read_generation(place: str) -> GenerationConfig | None:
    """What the generation_config.json at `place` says; None without one.

    Raises KilotuneError for a broken one, which transformers would pass over.
    """
    try:
        config = GenerationConfig.from_pretrained(place)
        _stops(config, place)
        return config
    except (KilotuneError, *NOT_OF_THE_FILE):
        raise
    except Exception as error:  # transformers' own, for every way a value can be wrong
        if file := file_of(place, GENERATION):
            raise KilotuneError(
                f"cannot be read ({first_line(error)})",
                where=str(file),
                fix="Put back the one that came with the model, or remove it",
            ) from error
        return None


def _stops(config: GenerationConfig, place: str) -> tuple[int, ...]:
    ends = config.eos_token_id
    stops = tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)
    if any(isinstance(token, bool) or not isinstance(token, int) for token in stops):
        raise KilotuneError(
            f"eos_token_id is not a token id: {ends!r}",
            where=str(file_of(place, GENERATION) or place),
            fix="Write the id of the token that ends an answer, or a list of such ids",
        )
    return stops


def _found(settings: ModelSettings, *more: str) -> Source:
    """What `settings.name` is; `more` are patterns of files wanted besides what a tokenizer has."""
    name = settings.name
    folder, file = local_folder(name), Path(name).expanduser()
    if folder is None and not file.is_file():
        return source_at(_without_its_code(name, *more), settings)
    return source_at(folder or file, settings)


def _without_its_code(name: str, *more: str) -> str:
    """The hub id `name`; of a first-generation Qwen the folder of its files, its code left out."""
    try:
        if first_generation(hf_hub_download(name, CONFIG)):
            return snapshot_download(name, allow_patterns=["*.json", RANKS, *more])
    except (OSError, ValueError):
        pass  # who looks for it next says what is missing
    return name


def _no_tokenizer(place: str, error: Exception) -> KilotuneError:
    """Which of the tokenizer's files at `place` is broken, or that there is none."""
    files = [file for name in TOKENIZER_FILES if (file := file_of(place, name))]
    if files:
        broken = next((file for file in files if not _is_json(file)), files[0])
        return KilotuneError(
            f"the tokenizer cannot be read ({first_line(error)})",
            where=str(broken),
            fix="Put back the tokenizer's files as they came with the model",
        )
    return KilotuneError(
        "no tokenizer there, in no built-in model, and not on the hub or in its cache",
        where=place,
        fix=f"Built in: {', '.join(BUILTIN)}. Otherwise give a folder that holds "
        f"tokenizer.json and tokenizer_config.json, or qwen.tiktoken. {how_to_get(place)}",
    )


def _is_json(file: Path) -> bool:
    try:
        return file.suffix != ".json" or bool(read_json(file))
    except KilotuneError:
        return False
