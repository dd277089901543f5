"""Which model a run is of: hashes of base weights, tokenizer, chat template, and what was tuned.

Tensors are told apart by name, type, shape and bytes, so that another sharding is no other model;
texts and settings by what they say, not by how they are laid out.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError
from kilotune.models.checkpoint import checkpoint_folder
from kilotune.models.hub import file_of, how_to_get, weight_files
from kilotune.models.integrity import read_json
from kilotune.models.source import TOKENIZER_FILES, TOKENIZER_SETTINGS, Source
from kilotune.recipe.advice import RECIPE, advised
from kilotune.recipe.schema import TEMPLATES
from kilotune.system.digests import sha256_of

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PROCESSOR_FILES = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
)  # fmt: skip
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
# What says where a model came from or who wrote it down, and nothing about what it computes. The
# chat template is a part of its own, and padding is set anew for every batch.
ASIDE = {
    "_name_or_path", "name_or_path", "base_model_name_or_path", "transformers_version",
    "peft_version", "chat_template", "padding", "truncation", "dtype", "torch_dtype", "use_cache",
    "tokenizer_class", "processor_class", "auto_map", "architectures", "revision", "inference_mode",
    "is_local", "local_files_only",
}  # fmt: skip

SAID = {
    "weights": "base weights",
    "config": "base model's config.json",
    "tokenizer": "tokenizer",
    "chat_template": "chat template",
}
HEAD = "lm_head.weight"
# What comes before the first layer's number or the last two parts of a name: `model.layers.`.
PREFIX = re.compile(r"^(?:[^.]+\.)+?(?=\d+\.|[^.]+\.[^.]+$)")
# Of a digest so much is shown.
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Identity:
    """Digests of a base model as a recipe uses it.

    `config` has two, of the file and of what transformers reads in it: one of them is enough, as
    saving a model anew writes another file, and another version may read more in the same.
    """

    weights: str
    config: str
    tokenizer: str
    chat_template: str


def identify(source: Source) -> Identity:
    """The identity of the model of `source`. All its weights are read, once in a process."""
    return Identity(
        weights=weights_digest(_weights_of(source)),
        config=_config(source),
        tokenizer=_tokenizer(source.place),
        chat_template=_digest([_template(source.place, source.settings.chat_template)]),
    )


def check_identity(recorded: Mapping[str, str], now: Identity, name: str, run: Path) -> None:
    """Raise KilotuneError where the model called `name` is not the one that `run` was begun with.

    What is not `recorded`, as by earlier versions, is not compared.
    """
    found = asdict(now)
    other = [part for part in SAID if part in recorded and not _same(recorded[part], found[part])]
    if other:
        said = ", ".join(
            f"{SAID[part]} ({found[part][:SHOWN]}, and was {recorded[part][:SHOWN]})"
            for part in other
        )
        raise KilotuneError(
            f"not the model that the run was begun with: different {said}",
            where=name,
            fix="Restore the model, or start another run with this one: "
            + advised("run", run / RECIPE),
        )


def tuned_digest(folder: Path) -> str:
    """Of what was tuned, with its settings, tokenizer, template and image processor.

    How it decodes is left out: `kilotune decode` changes that, and users may.
    """
    weights = folder / ADAPTER_WEIGHTS
    files = [weights] if weights.is_file() else weight_files(str(folder))
    place = str(folder)
    settings = _files(place, (ADAPTER_CONFIG, "config.json"))
    return _digest([weights_digest(files), settings, _tokenizer(place), _own_template(place)])


def weights_digest(files: Iterable[Path]) -> str:
    """Of the tensors in safetensors `files`, in whichever file each is; of others their bytes."""
    facts = ((file, file.stat()) for file in files)
    return _weights(tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in facts))


@lru_cache(maxsize=8)
def _weights(files: tuple[tuple[Path, int, int], ...]) -> str:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tensors = [tensor for file, *_ in files for tensor in _tensors(file, pool)]
    held = Counter(content for _, content in tensors)
    # A head that is tied to the embeddings may be written out or not.
    kept = [(n, c) for n, c in tensors if not (n == HEAD and held[c] > 1)]
    return _digest(sorted(f"{name} {content}" for name, content in kept))


def _tensors(file: Path, pool: ThreadPoolExecutor) -> Iterator[tuple[str, str]]:
    """The name and the content of each tensor of a file, read once, by several threads.

    Of names that part counts which a model and its base, saved each by itself, have in common.
    """
    if file.suffix != ".safetensors":
        yield file.name, sha256_of(file)
        return
    with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as raw:
        start = 8 + int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:start])
        header.pop("__metadata__", None)

        def content(name: str) -> tuple[str, str]:
            facts = header[name]
            first, last = facts["data_offsets"]
            with memoryview(raw) as whole, whole[start + first : start + last] as part:
                digest = hashlib.sha256(part).hexdigest()
            return PREFIX.sub("", name), f"{facts['dtype']} {facts['shape']} {digest}"

        yield from pool.map(content, header)


def _weights_of(source: Source) -> list[Path]:
    found = source.weight_files() or weight_files(str(checkpoint_folder(source.place)))
    if not found:  # of a hub id in another format than is fetched for loading
        fix = how_to_get(source.place) or "Give the folder of a whole model"
        raise KilotuneError("no weights to know the model by", where=source.place, fix=fix)
    return found


def _config(source: Source) -> str:
    file = file_of(source.place, "config.json")
    read = source.config.to_diff_dict()
    return " ".join(_digest([_settled(facts)]) for facts in (read_json(file) if file else {}, read))


def _tokenizer(place: str) -> str:
    """Of the tokenizer's files that are read, and of the image processor's."""
    whole = file_of(place, "tokenizer.json") is not None
    names = TOKENIZER_SETTINGS if whole else TOKENIZER_FILES
    return _files(place, (*names, *PROCESSOR_FILES))


def _files(place: str, names: Iterable[str]) -> str:
    """Of the files of those names that are there; of JSON without what is kept ASIDE."""
    said = []
    for name in dict.fromkeys(names):
        if file := file_of(place, name):
            whole = file.suffix != ".json"
            said += [name, sha256_of(file) if whole else _settled(read_json(file))]
    return _digest(said)


def _template(place: str, wanted: str) -> str:
    """The text of the model's own chat template or of the recipe's file; of kilotune's the name."""
    if wanted not in TEMPLATES:
        file = Path(wanted).expanduser()
        return file.read_text(encoding="utf-8") if file.is_file() else ""
    return wanted if wanted != "auto" else _own_template(place)


def _own_template(place: str) -> str:
    for name in (*TEMPLATE_FILES, "tokenizer_config.json"):
        if file := file_of(place, name):
            if file.suffix != ".json":
                return file.read_text(encoding="utf-8")
            if text := read_json(file).get("chat_template"):
                return text if isinstance(text, str) else _settled({"templates": text})
    return ""


def _same(recorded: str, found: str) -> bool:
    """Whether one of the digests is what it was."""
    return any(was == now for was, now in zip(recorded.split(), found.split(), strict=False))


def _settled(facts: Mapping[str, Any]) -> str:
    return json.dumps(_kept(facts), sort_keys=True, default=str)


def _kept(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {str(name): _kept(value) for name, value in facts.items() if name not in ASIDE}
    return [_kept(value) for value in facts] if isinstance(facts, list) else facts


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(lines).encode()).hexdigest()
