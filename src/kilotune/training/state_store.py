"""Hidden states on disk: whole files in the user's cache folder, locked and kept within a limit.

A file's name is the digest of its content, so that nothing damaged is ever taken for good.
"""

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from kilotune.data.files.claims import held
from kilotune.data.images.pixels import digest
from kilotune.data.packages import cache_folder
from kilotune.progress import Progress
from kilotune.rendering.label_mask import Rendering

FOLDER, FORMAT = "activations", "kilotune hidden states 1"
TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class StateFile:
    """A finished file, mapped into memory. Raises DamagedError where its head makes no sense."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file: Any = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise DamagedError(path) from error
        if file.metadata() != _about(path.parent):
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


class StateWriter:
    """One file in the making: rows of hidden states by name, written and read back in any order.

    The library's own writer wants all of it in memory at once; this one holds nothing. Inside a
    `with`, it leaves no file behind until `finish` is called.
    """

    def __init__(
        self, folder: Path, lengths: Mapping[str, int], width: int, dtype: torch.dtype
    ) -> None:
        self._width, self._dtype = width, dtype
        self._row = width * dtype.itemsize
        self._path = folder / f".{os.getpid()}.part"
        header: dict[str, object] = {"__metadata__": _about(folder)}
        end = 0
        self._places: dict[str, tuple[int, int]] = {}
        for name, length in lengths.items():
            self._places[name] = (end, length)
            places = [end, end := end + length * self._row]
            header[name] = {"dtype": TYPES[dtype], "shape": [length, width], "data_offsets": places}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8, as the format asks
        self._data = 8 + len(text)
        self._file = self._path.open("w+b")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._file.truncate(self._data + end)

    def __enter__(self) -> "StateWriter":
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, name: str, states: torch.Tensor) -> None:
        """Put the states of `name`, of shape (length, width), in their place."""
        start, length = self._places[name]
        if states.shape != (length, self._width) or states.dtype != self._dtype:
            raise ValueError(f"{tuple(states.shape)} of {states.dtype} does not fit {name}")
        self._file.seek(self._data + start)
        self._file.write(states.cpu().contiguous().view(torch.uint8).numpy().data)

    def read(self, name: str) -> torch.Tensor:
        """The states of `name` as they were written last."""
        start, length = self._places[name]
        self._file.seek(self._data + start)
        raw = bytearray(self._file.read(length * self._row))
        return torch.frombuffer(raw, dtype=self._dtype).view(length, self._width)

    def finish(self) -> StateFile:
        """Close the file and give it its name: from now on it is there, whole or not at all."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        target = self._path.with_name(f"{_digest(self._path)}.safetensors")
        os.replace(self._path, target)
        return StateFile(target)


class StateStore:
    """The files of the states that `key` names, beside those of other models; says what it does.

    Each is rows of `width` numbers of `dtype`. All files together take at most `limit` bytes. What
    is cached can tell what the texts were: it is the user's own, as the data are. Methods raise
    OSError where the folder cannot be used.
    """

    def __init__(
        self, key: str, width: int, dtype: torch.dtype, limit: int, progress: Progress
    ) -> None:
        self.root = cache_folder() / FOLDER
        self.folder = self.root / key
        self.limit, self.progress = limit, progress
        self._width, self._dtype = width, dtype

    def locked(self) -> AbstractContextManager[None]:
        """One process at a time looks and writes; another one then finds what it wrote."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        said = "Waiting for another run that is filling the hidden-state cache"
        return held(self.root / "cache.lock", self.root, wait=partial(self.progress.say, said))

    def open(self, wanted: Iterable[str]) -> list[StateFile]:
        """Whole files that hold anything of `wanted`; damaged ones are removed."""
        files, names = [], set(wanted)
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                file = StateFile(path)
                if names & file.names:
                    file.verify()
                    os.utime(path)  # the least recently used ones make room first
                    files.append(file)
                    names -= file.names
            except DamagedError:
                self.progress.say(f"{path} is damaged: what it held is computed again")
                path.unlink()
        return files

    def make_room(self, needed: int, keep: Iterable[StateFile]) -> str:
        """Remove the least recently used of other files until `needed` bytes are allowed.

        Returns why they are not, if so.
        """
        for part in self.root.glob("*/.*.part"):
            part.unlink()  # of a process that was killed: who writes holds the lock
        kept = {file.path for file in keep}
        sizes = {path: path.stat().st_size for path in self.root.glob("*/*.safetensors")}
        total = sum(sizes.values())
        others = [path for path in sizes if path not in kept]
        for path in sorted(others, key=lambda path: path.stat().st_mtime):
            if total + needed <= self.limit:
                break
            path.unlink()
            total -= sizes[path]
            self.progress.say(f"Removed {path} to stay within tune.cache_limit_gb")
        if total + needed > self.limit:
            return (
                f"{self.folder} holds {size_text(total)} of this and other data; remove what is "
                f"not needed, or allow more than tune.cache_limit_gb={self.limit / 1e9:g}"
            )
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            return f"the states need {size_text(needed)} on disk, and {size_text(free)} are free"
        return ""

    def size(self, renderings: Iterable[Rendering]) -> int:
        """What the states of `renderings` take, in bytes."""
        return sum(len(r.token_ids) for r in renderings) * self._width * self._dtype.itemsize

    def writer(self, renderings: Iterable[Rendering]) -> StateWriter:
        """A new file for the states of `renderings`."""
        lengths = {key_of(r): len(r.token_ids) for r in renderings}
        return StateWriter(self.folder, lengths, self._width, self._dtype)


class DamagedError(Exception):
    """A file that is cut, changed, or of something else."""


def key_of(rendering: Rendering) -> str:
    """The name of a rendering's states: a digest of its token ids and of its images' files."""
    made = hashlib.blake2b(array("q", rendering.token_ids).tobytes(), digest_size=16)
    for image in rendering.images:
        made.update(digest(image))
    return made.hexdigest()


def size_text(size: int) -> str:
    """A number of bytes as people read it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _about(folder: Path) -> dict[str, str]:
    """What the files of a folder say of themselves: whose states they hold."""
    return {"format": FORMAT, "key": folder.name}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
