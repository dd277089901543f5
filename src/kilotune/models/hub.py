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


def check_files(place: str) -> None:
    """Raise KilotuneError that names the files which the model at `place` lacks.

    Of a hub id nothing is missing as long as the hub can be asked.
    """
    if not Path(place).is_dir() and not offline():
        return
    if missing := missing_files(place):
        fix = how_to_get(place) or "Give a whole folder, as save_pretrained writes it"
        raise KilotuneError(f"there is no {', no '.join(missing)}", where=place, fix=fix)


def missing_files(place: str) -> list[str]:
    """Of configuration and weights, what a folder or the hub's cache of an id lacks.

    Raises KilotuneError for an index that cannot be read.
    """
    missing = [] if file_of(place, "config.json") else ["config.json"]
    names = weight_names(place)
    if names is None:
        return [*missing, f"{SAFE_WEIGHTS_NAME} (or {SAFE_WEIGHTS_INDEX_NAME} and its parts)"]
    return [*missing, *(name for name in names if not file_of(place, name))]


def weights_file(place: str) -> Path | None:
    """The file of all weights at `place`, or the index of their parts; None where neither is.

    The first in the order in which transformers looks for them.
    """
    order = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    return next((file for name in order if (file := file_of(place, name))), None)


def weight_names(place: str) -> list[str] | None:
    """The names of the files that hold the weights at `place`, be they there or not."""
    first = weights_file(place)
    if first is None:
        return None
    return sorted(set(read_index(first).values())) if first.suffix == ".json" else [first.name]


def weight_files(place: str) -> list[Path]:
    """The files that hold the weights at `place`, as far as they are there."""
    found = (file_of(place, name) for name in weight_names(place) or ())
    return [file for file in found if file]


def read_index(file: Path) -> dict[str, str]:
    """The name of the file that each tensor is in. Raises KilotuneError for a broken index."""
    try:
        places = json.loads(file.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(part) for name, part in places.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise KilotuneError(
            "not an index of the parts of a checkpoint", where=str(file), fix="Fetch it again"
        ) from error


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


def how_to_get(place: str) -> str:
    """The command that fetches a hub id, and what to do with it; of anything else nothing."""
    if Path(place).is_dir() or not HUB_ID.fullmatch(place):
        return ""
    return (
        f"Where there is a network: hf download {place} --local-dir FOLDER, and give that "
        f"folder; or without --local-dir, and take the cache along ({constants.HF_HUB_CACHE})."
    )


def file_of(place: str, name: str) -> Path | None:
    """The file `name` of a folder, or of a hub id in the hub's cache; None where it is not."""
    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    try:
        found = try_to_load_from_cache(place, name)
    except ValueError:  # no hub id: a folder that is not there
        return None
    return Path(found) if isinstance(found, str) else None
