"""Digests of files."""

import hashlib
from pathlib import Path


def sha256_of(file: Path) -> str:
    """SHA-256 of the content of `file`, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
