"""How much a data file may hold: what unpacks to more than memory is refused before it is there."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil

from kilotune.errors import KilotuneError

# Far beyond what a thousand examples need, images in them included.
LARGEST = 4_000_000_000
# Its bytes, its text, its lines and its rows are in memory at the same time: of CSV and JSON Lines
# seven times their size was measured; images in Parquet take less.
COPIES = 4
AT_ONCE = 1 << 20
# What a row takes beside its values.
ROW = 250
FIX = (
    "Give kilotune fewer examples (a few thousand teach what there is to learn), and images as "
    "files beside them"
)


class TooLargeError(Exception):
    """More than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """While the file at `path` is read: raise KilotuneError where it is more than memory holds."""
    try:
        yield
    except TooLargeError as error:
        what = f"{_of(path)} and holds more than the {_gb(error.limit)} that can be read here"
        raise KilotuneError(what, where=str(path), fix=FIX) from error
    except MemoryError as error:
        what = f"{_of(path)}, and there is not enough memory to read it"
        raise KilotuneError(what, where=str(path), fix=FIX) from error


def largest() -> int:
    """How many bytes may be read of one file, unpacked."""
    return min(LARGEST, psutil.virtual_memory().available // COPIES)


class Room:
    """What is left of the memory that a file may take, counted inside `bounded` while it is read.

    What is packed does not say how much it is.
    """

    def __init__(self) -> None:
        self._limit, self._taken = largest(), 0

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises TooLargeError, which `bounded` puts in words."""
        self._taken += size
        if self._taken > self._limit:
            raise TooLargeError(self._limit)


class Readable(Protocol):
    """A file that gives its bytes piece by piece."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


def read_bounded(file: Readable) -> bytes:
    """All of `file`, as far as there is room."""
    room, read = Room(), io.BytesIO()
    while piece := file.read(AT_ONCE):
        room.take(len(piece))
        read.write(piece)
    return read.getvalue()


def _of(path: Path) -> str:
    return f"the file has {_gb(os.path.getsize(path))}"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
