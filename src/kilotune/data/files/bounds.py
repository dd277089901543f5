"""How much a data file may hold: what unpacks to more than memory is refused before it is there."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from kilotune.errors import KilotuneError
from kilotune.system.free_memory import free_memory

# Bytes of memory: far beyond what a thousand examples need, images in them included.
LARGEST = 32_000_000_000
# The share of the free memory that reading may take: what is done with the rows takes as much.
SHARE = 2
AT_ONCE = 1 << 20
# What a row takes, and what a value does beside its bytes, as Python's objects.
ROW, VALUE = 300, 100
# A text file is in memory as bytes, text, lines and values at the same time; where one character
# of it is an emoji, the text takes four bytes for each.
COPIES = 13
# Beside that, what follows on each of these: measured for rows of a character or two.
FOLLOWING = {b"\n": 450, b"{": ROW, b"[": VALUE, **dict.fromkeys((b",", b";", b"\t", b"|"), VALUE)}
FIX = (
    "Use fewer examples (a few thousand are enough to fine-tune on), and keep images in files of "
    "their own"
)


class TooLargeError(Exception):
    """More than `limit` bytes of memory."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


@contextmanager
def bounded(path: Path) -> Iterator[None]:
    """While the file at `path` is read: raise KilotuneError where it is more than memory holds."""
    try:
        yield
    except TooLargeError as error:
        what = f"{_of(path)}, more than {_gb(error.limit)} in memory: too large to read here"
        raise KilotuneError(what, where=str(path), fix=FIX) from error
    except MemoryError as error:
        what = f"{_of(path)}: not enough memory to read it"
        raise KilotuneError(what, where=str(path), fix=FIX) from error


def largest() -> int:
    """How many bytes of memory the reading of one file may take."""
    return min(LARGEST, free_memory() // SHARE)


def check_text(raw: bytes) -> None:
    """Raise TooLargeError where rows of CSV or JSON would take more memory than there is room."""
    following = sum(size * raw.count(mark) for mark, size in FOLLOWING.items())
    Room().take(COPIES * len(raw) + following)


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
    return f"{_gb(os.path.getsize(path))} on disk"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
