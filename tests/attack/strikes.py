"""What befalls a command, and the hook within it that strikes at a definite file operation."""

import os
import resource
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS = {"TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "INT": signal.SIGINT}
KILLING = ("audit", "torn", "event", "time")
# Begins the line of the hook's log that says when it struck.
MARK = "struck at "


@dataclass(frozen=True, slots=True)
class Strike:
    """What befalls a command, and when.

    Kinds: `audit`, killed before its n-th file operation; `torn`, killed by the first write after
    that operation that would make a file longer than `more` bytes beyond what it holds, so that
    half of it is on disk; `event`, killed at the n-th change that the kernel tells of; `time`,
    killed after n seconds; `TERM`, `HUP`, `INT`, that signal before the n-th operation; `INT-INT`,
    Ctrl-C once more two operations later.
    """

    kind: str
    n: float
    more: int = 0

    @property
    def signals(self) -> bool:
        """Whether it asks the command to stop, and does not kill it."""
        return self.kind.partition("-")[0] in SIGNALS

    @property
    def kills(self) -> bool:
        """Whether the command ends of it at once."""
        return self.kind in KILLING

    def __str__(self) -> str:
        more = f":{self.more}" if self.kind == "torn" else ""
        return f"{self.kind}:{self.n:g}{more}"

    @classmethod
    def parse(cls, text: str) -> "Strike":
        """What `str` gives."""
        kind, n, *more = text.split(":")
        return cls(kind, float(n), *map(int, more))


NOTHING = Strike("none", 0)


class Hook:
    """Counts the file operations under `root` that change something, and strikes before one."""

    NAMES: Mapping[str, tuple[int, ...]] = {
        "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,),
        "os.truncate": (0,), "os.link": (0, 1), "os.symlink": (1,), "os.utime": (0,),
        "os.chmod": (0,), "shutil.rmtree": (0,), "shutil.copyfile": (1,), "shutil.move": (1,),
    }  # fmt: skip
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self, root: Path, strike: Strike, log: int) -> None:
        self.root, self.strike, self.log = os.path.realpath(root), strike, log
        self.count, self.next = 0, strike.n
        outside = strike.kind in ("event", "time", NOTHING.kind)
        self.left = 0 if outside else 1 + strike.kind.count("-")
        self.within = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.within or (event != "open" and event not in self.NAMES):
            return
        self.within = True
        try:
            paths = self._paths(event, args)
            if any(path.startswith(self.root) for path in paths):
                self._happens(event, paths)
        finally:
            self.within = False

    def _paths(self, event: str, args: tuple[Any, ...]) -> list[str]:
        if event != "open":
            given = [args[place] for place in self.NAMES[event]]
        elif (args[2] or 0) & self.WRITING and not self._is_lock(args[0]):
            given = [args[0]]
        else:
            return []
        names = [os.fsdecode(name) for name in given if not isinstance(name, int)]
        if event == "os.mkdir" and os.path.isdir(names[0]):
            return []
        beside = event in ("os.remove", "os.rmdir") and args[1] >= 0  # in an open folder
        at = os.readlink(f"/proc/self/fd/{args[1]}") if beside else os.getcwd()
        return [os.path.join(at, name) for name in names]

    @staticmethod
    def _is_lock(path: Any) -> bool:
        """Whether it is a lock, or the folder of one: how filelock opens them is its own affair."""
        return not isinstance(path, int) and (
            os.fsdecode(path).endswith(".lock") or os.path.isdir(path)
        )

    def _happens(self, event: str, paths: Sequence[str]) -> None:
        self.count += 1
        os.write(self.log, f"{event} {' '.join(paths)}\n".encode())
        if self.left and self.count >= self.next:
            self.left -= 1
            self.next += 2
            os.write(self.log, f"{MARK}{time.monotonic()}\n".encode())
            self._strike(paths)

    def _strike(self, paths: Sequence[str]) -> None:
        strike = self.strike
        if strike.kind == "audit" or threading.current_thread() is not threading.main_thread():
            os.kill(os.getpid(), signal.SIGKILL)
        elif strike.kind == "torn":
            held = max((os.path.getsize(p) for p in paths if os.path.isfile(p)), default=0)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            limit = held + strike.more
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        else:
            os.kill(os.getpid(), SIGNALS[strike.kind.partition("-")[0]])
