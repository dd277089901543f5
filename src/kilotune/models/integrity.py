"""Files and tensors of a model that are damaged, missing, of other shapes, or not finite."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from kilotune.errors import KilotuneError, some

Model = Any  # transformers.PreTrainedModel, which ships no types
Shape = tuple[int, ...]

AGAIN = "Copy or fetch it again"
WHOLE_AGAIN = "Give the weights with the config.json that they were saved with, or fetch both again"

# Not of the file that was read, but of this machine: each is said where it is known what to do.
NOT_OF_THE_FILE = (ImportError, MemoryError, torch.OutOfMemoryError)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises KilotuneError for anything else."""
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KilotuneError("not valid JSON", where=str(file), fix=AGAIN) from error
    if not isinstance(read, dict):
        raise KilotuneError("not a JSON object", where=str(file), fix=AGAIN)
    return read


def tensor_names(file: Path) -> list[str]:
    """What the safetensors `file` holds. Raises KilotuneError for one that is cut or damaged.

    The header and the size of the file are looked at, and no tensor.
    """
    try:
        with safe_open(file, "pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise KilotuneError(
            f"cut or damaged ({first_line(error)})", where=str(file), fix=AGAIN
        ) from error


def check_loaded(info: Mapping[str, Any], where: str, unused: str = "") -> None:
    """Raise KilotuneError for tensors that transformers did not find, or found in other shapes.

    `info` is what it says of a loading; what it makes new without need has the name `unused`.
    """
    if said := lacking(info, unused):
        raise _refusal(said, where)


def lacking(info: Mapping[str, Any], unused: str = "") -> str:
    """The same in words, "" where all is there."""
    missing = [name for name in info["missing_keys"] if not unused or unused not in name]
    shapes = {name: (tuple(found), tuple(asked)) for name, found, asked in info["mismatched_keys"]}
    return _in_words(sorted(missing), shapes, sorted(info["unexpected_keys"]))


def check_held(model: Model, held: Mapping[str, Shape], where: str) -> None:
    """Raise KilotuneError where the shapes `held` are not those of `model`, which may be empty.

    A head that is tied to the embeddings need not be there.
    """
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    asked = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = [name for name in asked if name not in held and name not in tied]
    shapes = {
        name: (held[name], shape)
        for name, shape in asked.items()
        if name in held and held[name] != shape
    }
    if said := _in_words(missing, shapes, [name for name in held if name not in asked]):
        raise _refusal(said, where)


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """The names of `tensors` that hold numbers which are not finite."""
    return [name for name, tensor in tensors if not _finite(tensor)]


def first_line(error: Exception) -> str:
    """What `error` says, as far as it fits into a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _finite(tensor: torch.Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    numbers = tensor.detach().float() if tensor.itemsize == 1 else tensor.detach()
    flat = numbers.flatten()
    # One that is not makes the sum of squares so, which takes a tenth of the time that looking at
    # each takes; it may also be too large by itself.
    return bool(torch.dot(flat, flat).isfinite()) or bool(flat.isfinite().all())


def _refusal(said: str, where: str) -> KilotuneError:
    return KilotuneError(f"{said}; config.json asks for them", where=where, fix=WHOLE_AGAIN)


def _in_words(
    missing: list[str], shapes: Mapping[str, tuple[Shape, Shape]], others: list[str]
) -> str:
    said = []
    if missing:
        instead = f" (they hold {some(others, 3)})" if others else ""
        said.append(f"the weights lack {some(missing)}{instead}")
    if shapes:
        each = [f"{name} is {_by(found)}, not {_by(asked)}" for name, (found, asked) in
                sorted(shapes.items())]  # fmt: skip
        said.append(f"the weights have other shapes: {some(each, 3)}")
    return "; ".join(said)


def _by(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a number"
