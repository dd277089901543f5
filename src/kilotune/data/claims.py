"""Places to write to: one process at a time, and gone on with after one that was killed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kilotune.data.writers import check_writable, remove_parts
from kilotune.errors import KilotuneError

Check = Callable[[Path], object]


@contextmanager
def claimed(out: Path, *beside: Path, check: Check = check_writable) -> Iterator[None]:
    """Hold `out`, which `check` lets be written, while it and what belongs `beside` it are made.

    The lock is the system's own, gone with the process. Its file `.OUT.kilotune.lock` stays where a
    process was killed: the next one removes what that left half written, and what is `beside` may
    be that one's (`write_together` tells). Raises KilotuneError while another process holds it.
    """
    unfinished = _lock(out).exists()
    if not unfinished:
        check_new(out, *beside, check=check)  # before anything is touched
    with held(_lock(out), out):
        try:
            for path in (out, *beside):
                remove_parts(path)
            check(out)
            yield
            unfinished = False
        finally:
            if not unfinished or out.exists():
                with suppress(OSError):
                    _lock(out).unlink()


def check_new(out: Path, *beside: Path, check: Check = check_writable) -> None:
    """Raise KilotuneError where `check` does of `out`, or of what belongs `beside` it.

    Not of what may be from a process that was killed before it wrote `out` itself.
    """
    if out.exists() and _lock(out).exists():
        with claimed(out, *beside, check=check):  # tidies up after one that was killed at its end
            return
    for path in (out, *(() if _lock(out).exists() else beside)):
        check(path)


@contextmanager
def held(lock: Path, place: Path) -> Iterator[None]:
    """Hold the file `lock`. Raises KilotuneError about `place` while another process holds it."""
    own = FileLock(lock)
    try:
        own.acquire(timeout=0)
        while not lock.exists():  # its last holder took it away
            own.release()
            own.acquire(timeout=0)
    except Timeout as error:
        raise KilotuneError(
            "another process is writing it",
            where=str(place),
            fix="Wait for it to end, or choose another place",
        ) from error
    try:
        yield
    finally:
        own.release()


def _lock(out: Path) -> Path:
    return out.with_name(f".{out.name}.kilotune.lock")
