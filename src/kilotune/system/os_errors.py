"""What the system refuses, memory, disk or rights, as one line, whichever library tells of it."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kilotune.errors import KilotuneError

MEMORY = "not enough memory"
MEMORY_FIX = (
    "Close other programs, raise the limit (ulimit -v), or use a smaller model or a smaller "
    "tune.batch_size; kilotune plan estimates what is needed"
)
# How it is said where it is no MemoryError: by torch's allocators, by the loader of shared
# libraries, and by Python in another process.
NO_MEMORY = re.compile(
    r"MemoryError|can't allocate memory|cannot allocate memory|not enough memory|out of memory"
    r"|failed to map segment|std::bad_alloc|can't start new thread",
    re.IGNORECASE,
)
# torch.save says that it could not write, and not why.
TORCH_WRITES = re.compile(r"PytorchStreamWriter|inline_container")
NOT_TO_ITS_END = "could not be written completely; the disk may be full"
NO_PARENT = re.compile(r"Parent directory (.+) does not exist")
OF_PYTHON = re.compile(r"\[Errno (\d+)\]")
# Arrow says in whose words the system refused.
OF_ARROW = re.compile(r"Detail: \[errno \d+\]")
# Libraries in Rust, such as safetensors.
OF_RUST = re.compile(r"\(os error (\d+)\)(?: at path \"(.+)\")?")

FIXES = {
    errno.ENOSPC: "Free some disk space, then run the same command again",
    errno.EDQUOT: "Free some space within the quota, then run the same command again",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another place",
    errno.EIO: "Check the disk, or choose another place",
    errno.EROFS: "The file system is read-only: choose another place",
    errno.EMFILE: "Raise the limit on open files: ulimit -n",
    errno.ENFILE: "Close other programs, or raise the system's limit on open files",
    errno.ENOENT: "Check the path",
}
# What is about the user's machine even where no file is named.
NAMELESS = {code for code in FIXES if code != errno.ENOENT}


def refusal(error: BaseException) -> KilotuneError | None:
    """The error that a user sees where the system refused something; None for any other error."""
    if lacks_memory(error):
        return KilotuneError(MEMORY, fix=MEMORY_FIX)
    refused = as_os_error(error)
    if refused is None or refused.strerror is None:
        return None
    if refused.filename is None:
        return _about_no_file(refused)
    path = Path(os.fsdecode(refused.filename))
    if refused.errno == errno.ENOENT and not path.parent.is_dir():
        return KilotuneError(
            "the folder does not exist",
            where=str(path.parent),
            fix="Put it back if it was moved or deleted; otherwise create it",
        )
    fix = "Check its permissions and the free space, or choose another place"
    return KilotuneError(refused.strerror, where=str(path), fix=FIXES.get(refused.errno or 0, fix))


def _about_no_file(refused: OSError) -> KilotuneError | None:
    if refused.errno == errno.ENOENT and not os.path.isdir(os.curdir):
        return KilotuneError("the current folder no longer exists", fix="Change to another folder")
    if refused.errno not in NAMELESS:
        return None  # not about a file of the user's
    return KilotuneError(str(refused.strerror), fix=FIXES[refused.errno])


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Of what the system refuses inside, say that it was about `path`, unless it is said.

    A temporary name beside `path` is not what the user knows. Raises OSError for every library's
    way of saying it.
    """
    try:
        yield
    except Exception as error:
        refused = None if lacks_memory(error) else as_os_error(error)
        if refused is None:
            raise
        if refused.filename is None or _temporary(refused.filename, path):
            refused.filename = str(path)
        if refused is error:
            raise
        raise refused from error


def _temporary(name: str | bytes, path: Path) -> bool:
    return Path(os.fsdecode(name)).name.startswith(f".{path.name}.")


def as_os_error(error: BaseException) -> OSError | None:
    """The system's refusal behind an error of Python's or a library's; None for any other error."""
    if isinstance(error, shutil.Error):  # of every file of a folder, in words
        found = OF_PYTHON.search(str(error))
        return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None
    if isinstance(error, OSError):
        if error.errno is not None and OF_ARROW.search(error.strerror or ""):
            error.strerror = os.strerror(error.errno)
        return error if error.errno is not None else None
    if not isinstance(error, RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    said = str(error)
    if found := OF_RUST.search(said):
        return OSError(int(found[1]), os.strerror(int(found[1])), found[2])
    if found := NO_PARENT.search(said):
        gone = str(Path(found[1]) / "file")
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT), gone)
    return OSError(errno.ENOSPC, NOT_TO_ITS_END) if TORCH_WRITES.search(said) else None


def lacks_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, this machine's or an accelerator's, whoever says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, ImportError | RuntimeError) and bool(NO_MEMORY.search(str(error)))
