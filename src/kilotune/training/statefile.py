"""Hidden states on disk: safetensors files that are written piece by piece and checked whole.

A file's name is the digest of its content, so that nothing damaged is ever taken for good.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class StateWriter:
    """One file in the making: rows of hidden states by name, written and read back in any order.

    The library's own writer wants all of it in memory at once; this one holds nothing. Inside a
    `with`, it leaves no file behind until `finish` is called.
    """

    def __init__(
        self,
        folder: Path,
        lengths: Mapping[str, int],
        width: int,
        dtype: torch.dtype,
        about: Mapping[str, str],
    ) -> None:
        self._shape, self._dtype = width, dtype
        self._row = width * dtype.itemsize
        self._path = folder / f".{os.getpid()}.part"
        header: dict[str, object] = {"__metadata__": dict(about)}
        end = 0
        self._places: dict[str, tuple[int, int]] = {}
        for name, length in lengths.items():
            start, end = end, end + length * self._row
            header[name] = {
                "dtype": TYPES[dtype],
                "shape": [length, width],
                "data_offsets": [start, end],
            }
            self._places[name] = (start, length)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8, as the format asks
        self._data = 8 + len(text)
        self._file = self._path.open("w+b")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + end)

    def __enter__(self) -> "StateWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, name: str, states: torch.Tensor) -> None:
        """Put the states of `name`, of shape (length, width), in their place."""
        start, length = self._places[name]
        if states.shape != (length, self._shape) or states.dtype != self._dtype:
            raise ValueError(f"{tuple(states.shape)} of {states.dtype} does not fit {name}")
        self._file.seek(self._data + start)
        self._file.write(states.cpu().contiguous().view(torch.uint8).numpy().data)

    def read(self, name: str) -> torch.Tensor:
        """The states of `name` as they were written last."""
        start, length = self._places[name]
        self._file.seek(self._data + start)
        raw = bytearray(self._file.read(length * self._row))
        return torch.frombuffer(raw, dtype=self._dtype).view(length, self._shape)

    def finish(self) -> Path:
        """Close the file and give it its name: from now on it is there, whole or not at all."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._path.with_name(f"{_digest(self._path)}.safetensors")
        os.replace(self._path, target)
        return target


class StateFile:
    """A finished file, mapped into memory. Raises DamagedError where its head makes no sense."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self.path = path
        try:
            file: Any = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise DamagedError(path) from error
        if file.metadata() != dict(about):
            raise DamagedError(path)
        self._file = file
        self.names = frozenset(file.keys())

    def verify(self) -> None:
        """Read all of it once; raises DamagedError unless it is what its name says."""
        if _digest(self.path) != self.path.stem:
            raise DamagedError(self.path)

    def states(self, name: str) -> torch.Tensor:
        """The states of `name`, (length, width): pages of the file, not a copy."""
        tensor: torch.Tensor = self._file.get_tensor(name)
        return tensor


class DamagedError(Exception):
    """A file that is cut, changed, or of something else."""


def open_files(
    folder: Path, about: Mapping[str, str], wanted: Iterable[str]
) -> tuple[list[StateFile], list[Path]]:
    """Files of `folder` that hold anything of `wanted`, and those that turned out damaged."""
    files, damaged = [], []
    names = set(wanted)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            file = StateFile(path, about)
            if names & file.names:
                file.verify()
                files.append(file)
                names -= file.names
        except DamagedError:
            damaged.append(path)
    return files, damaged


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
