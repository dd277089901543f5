"""What of a model of the hub, or of a folder, is there without asking any network."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from kilotune.data.packages import offline
from kilotune.errors import KilotuneError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")


def check_files(source: str) -> None:
    """Raise KilotuneError that names the files which the model at `source` lacks.

    Of a hub id nothing is missing as long as the hub can be asked.
    """
    if not Path(source).is_dir() and not offline():
        return
    if missing := missing_files(source):
        fix = how_to_get(source) or "Give a whole folder, as save_pretrained writes it"
        raise KilotuneError(f"there is no {', no '.join(missing)}", where=source, fix=fix)


def missing_files(source: str) -> list[str]:
    """Of configuration and weights, what a folder or the hub's cache of an id lacks."""
    missing = [] if _path(source, "config.json") else ["config.json"]
    if any(_path(source, name) for name in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME)):
        return missing
    for name in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if index := _path(source, name):
            parts = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            return [*missing, *(p for p in sorted(set(parts)) if not _path(source, p))]
    return [*missing, f"{SAFE_WEIGHTS_NAME} (or {SAFE_WEIGHTS_INDEX_NAME} and its parts)"]


def not_found(
    name: str, folder: Path | None, error: Exception, builtin: Iterable[str]
) -> KilotuneError:
    """What is missing for the model `name`, whose configuration could not be had.

    `folder` is where it was looked for, if anywhere; `builtin` are the names that need no hub.
    """
    if folder is not None:
        there = (folder / "config.json").is_file()
        said = str(error).strip().partition("\n")[0]
        what = f"cannot read its config.json ({said})" if there else "no config.json in this folder"
        return KilotuneError(what, where=name, fix="Give a folder as save_pretrained writes it")
    neither = "not a built-in model, not a model folder"
    own = f"Built in: {', '.join(builtin)}."
    if not HUB_ID.fullmatch(name):
        fix = f"{own} Otherwise give a folder that holds config.json, a GGUF file, or a hub id"
        return KilotuneError(f"{neither}, and not a hub id", where=name, fix=fix)
    why = "HF_HUB_OFFLINE is set" if offline() else "the hub does not give it"
    missing = ", ".join(missing_files(name)) or "a readable config.json"
    what = f"{neither}; the hub's cache has no {missing} of it, and {why}"
    return KilotuneError(what, where=name, fix=f"{how_to_get(name)} {own}")


def how_to_get(source: str) -> str:
    """The command that fetches a hub id, and what to do with it; of anything else nothing."""
    if Path(source).is_dir() or not HUB_ID.fullmatch(source):
        return ""
    return (
        f"Where there is a network: hf download {source} --local-dir FOLDER, and give that "
        f"folder; or without --local-dir, and take the cache along ({constants.HF_HUB_CACHE})."
    )


def _path(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        path = Path(source) / name
        return path if path.is_file() else None
    found = try_to_load_from_cache(source, name)
    return Path(found) if isinstance(found, str) else None
