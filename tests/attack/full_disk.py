"""A disk that fills up: a small tmpfs where one may be mounted, else a limit on every file."""

import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.attack.equal import differences
from tests.attack.kills import UNUSABLE, Kill, to_the_end
from tests.attack.scenes import Scene, Stage
from tests.attack.zygote import Done

ROOMY = "256m"
# torch says that it could not write, and not why.
REASONS = ("No space left on device", "File too large", "the disk may be full")


@cache
def may_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as folder:
        if _mount(Path(folder), "64k"):
            _unmount(Path(folder))
            return True
    return False


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder`, which is there and empty."""
    assert _mount(folder, str(size)), f"no tmpfs at {folder}"
    try:
        yield
    finally:
        _unmount(folder)


def make_room(folder: Path) -> None:
    """Let the small disk at `folder` be large."""
    _call("mount", "-o", f"remount,size={ROOMY}", str(folder))


def _mount(folder: Path, size: str) -> bool:
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(["mount", *options], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _unmount(folder: Path) -> None:
    _call("umount", "--lazy", str(folder))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def fill_disk(
    stage: Stage, name: str, scene: Scene, size: int, *, full: str = "work", mounted: bool
) -> tuple[list[Done], list[str]]:
    """The scene's command with `size` bytes for its folder `full`; then with room, to the end.

    Returns what was done, and what is wrong with it. Without a mount, no file may be longer.
    """
    expected, _ = stage.undisturbed(scene)
    case = stage.root / name
    (case / full).mkdir(parents=True)
    if not mounted:
        return _filled(stage, scene, case, expected, full, size)
    with small_disk(case / full, size):
        return _filled(stage, scene, case, expected, full, None)


def _filled(
    stage: Stage, scene: Scene, case: Path, expected: Path, full: str, limit: int | None
) -> tuple[list[Done], list[str]]:
    stage.case(case.name, scene)
    first = stage.do(scene.argv(stage), case, file_limit=limit)
    faults = list(_refused_well(first, scene, case))
    if limit is None:
        make_room(case / full)
    after = []
    if first.status not in scene.ends:
        after = to_the_end(stage, scene, Kill(scene.name, ()), case)
    last = [first, *after][-1]
    if last.status not in scene.ends:
        faults.append(f"with room: status {last.status}")
    return [first, *after], faults + differences(expected, case)


def _refused_well(done: Done, scene: Scene, case: Path) -> Iterable[str]:
    """One line, of a file in the case and of the disk; or all of it done without that file."""
    if "Traceback (most recent call last)" in done.output:
        yield f"a traceback: {done.output.rstrip().splitlines()[-1]}"
    if done.status in scene.ends:
        return
    said = [line for line in done.output.splitlines() if line.startswith("kilotune: ")]
    if done.status != UNUSABLE or len(said) != 1:
        yield f"status {done.status} and {len(said)} lines for a full disk"
        return
    if not any(reason in said[0] for reason in REASONS):
        yield f"does not say that the disk is full: {said[0]}"
    named = said[0].removeprefix("kilotune: ").split(": ")[0]
    if not named.startswith((str(case), scene.out)):
        yield f"names no file of the disk: {said[0]}"
