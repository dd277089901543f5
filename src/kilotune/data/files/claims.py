"""Places to write to: one process at a time, and gone on with after one that was killed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kilotune.data.files.writers import check_writable, remove, remove_parts
from kilotune.errors import KilotuneError

Check = Callable[[Path], object]


@contextmanager
def claimed(out: Path, *beside: Path, check: Check = check_writable) -> Iterator[None]:
    """Hold `out`, which `check` lets be written, while it and what belongs `beside` it are made.

    The lock is the system's own, gone with the process. Its file `.OUT.kilotune.lock` stays where a
    process was killed: the next one removes what that left half written, and what is `beside` may
    be that one's (`write_together` tells). Raises KilotuneError while another process holds it.
    """
    check_new(out, *beside, check=check)  # before anything is touched
    unfinished = _lock(out).exists()
    with held(_lock(out), out):
        try:
            _tidy(out, *beside)
            check(out)
            yield
            unfinished = False
        finally:
            if not unfinished or out.exists():
                remove(_lock(out))


def check_new(out: Path, *beside: Path, check: Check = check_writable) -> None:
    """Raise KilotuneError where `check` does of `out`, or of what belongs `beside` it.

    Not of what may be from a process that was killed before it wrote `out` itself.
    """
    if out.exists() and _lock(out).exists():  # killed after it wrote `out`, before it was tidy
        with held(_lock(out), out):
            _tidy(out, *beside)
            remove(_lock(out))
    for path in (out, *(() if _lock(out).exists() else beside)):
        check(path)


def _tidy(*paths: Path) -> None:
    for path in paths:
        remove_parts(path)


@contextmanager
def held(lock: Path, place: Path, *, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the file `lock`, which is the system's own lock, gone with the process.

    While another process holds it: raise KilotuneError about `place`; or, with `wait`, call that
    and wait.
    """
    own = FileLock(lock)
    try:
        own.acquire(timeout=0)
    except Timeout as error:
        if wait is None:
            raise KilotuneError(
                "locked: another kilotune process is writing to it",
                where=str(place),
                fix="Wait for it to end, or choose another place",
            ) from error
        wait()
        own.acquire()
    try:
        yield
    finally:
        own.release()


def _lock(out: Path) -> Path:
    return out.with_name(f".{out.name}.kilotune.lock")
