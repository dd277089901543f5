"""The kernel's own news of a folder: every change in it, whatever language makes it.

inotify, through the C library: a checkpoint's tensors are written by C++ and Rust, of which
Python's audit hooks hear nothing. Linux alone.
"""

import ctypes
import os
import struct
from pathlib import Path

CREATED, MODIFIED, MOVED, DELETED, CLOSED = 0x100, 0x2, 0x80, 0x200, 0x8
CHANGES = CREATED | MODIFIED | MOVED | DELETED | CLOSED
FOLDER = 0x40000000
HEAD = struct.Struct("iIII")
ROOM = 1 << 16


class Watched:
    """Counts the changes under `root` as they come; new folders are watched too."""

    def __init__(self, root: Path) -> None:
        self._c = ctypes.CDLL(None, use_errno=True)
        self._number = self._c.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._number >= 0, os.strerror(ctypes.get_errno())
        self._folders: dict[int, Path] = {}
        self.changes = 0
        self._add(root)

    def fileno(self) -> int:
        """For `select`."""
        return int(self._number)

    def read(self) -> None:
        """Count what has come in."""
        try:
            raw = os.read(self._number, ROOM)
        except BlockingIOError:
            return
        while raw:
            watch, mask, _, length = HEAD.unpack_from(raw)
            name = raw[HEAD.size : HEAD.size + length].rstrip(b"\0").decode()
            raw = raw[HEAD.size + length :]
            self.changes += 1
            if mask & FOLDER and mask & (CREATED | MOVED) and watch in self._folders:
                self._add(self._folders[watch] / name)

    def close(self) -> None:
        """Watch no more."""
        os.close(self._number)

    def _add(self, folder: Path) -> None:
        watch = self._c.inotify_add_watch(self._number, os.fsencode(folder), CHANGES)
        if watch < 0:  # gone already
            return
        self._folders[watch] = folder
        for path in folder.iterdir():  # made before it was watched
            self.changes += 1
            if path.is_dir():
                self._add(path)
