"""How much memory is free: of the machine, and within the limits that a container sets."""

from collections.abc import Iterator
from pathlib import Path

import psutil

MINE, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Of the two versions of Linux's control groups: the limit, what is taken, and the part of it that
# the kernel gives back when it is needed.
FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory() -> int:
    """The bytes that this process may still take without anything being swapped or killed."""
    return max(0, min([psutil.virtual_memory().available, *_within_groups()]))


def _within_groups() -> Iterator[int]:
    """What is left in each group that holds this process and has a limit."""
    try:
        lines = MINE.read_text(encoding="utf-8").splitlines()
    except OSError:  # not on this system
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        kind = "memory" if "memory" in kinds.split(",") else kinds
        if kind not in FILES:
            continue
        own = ROOT / kind / path.lstrip("/")
        # Within a container its own group is the root, whatever the path says.
        for folder in (own, *own.parents):
            if folder.is_relative_to(ROOT):
                yield from _left(folder, *FILES[kind])


def _left(folder: Path, limit: str, taken: str, reclaimable: str) -> Iterator[int]:
    try:
        room = int((folder / limit).read_text()) - int((folder / taken).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield room + int(stat.get(reclaimable, 0))
    except (OSError, ValueError):  # no such group here, or no limit: "max"
        return
