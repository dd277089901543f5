"""Rows with the place where they stand, whatever kind of file they come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune.data.finding import Finding


@dataclass(frozen=True, slots=True)
class Row:
    """One record, the line of the file where it starts (from 1), and that file in a folder."""

    line: int
    values: dict[str, Any]
    file: str = ""

    def id(self, source: str) -> str:
        """The row's name in messages: `data:2`, or `data:sub/file.csv:2` in a folder."""
        return f"{source}:{self.file}:{self.line}" if self.file else f"{source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Table:
    """A file's records in order, the names of its columns, and what reading it found.

    Values are what JSON knows, and bytes.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()


# What reading the bytes of one file gives.
Read = tuple[list[Row], list[Finding]]


def compressed(path: Path) -> bool:
    """Whether the name says that the file is gzipped."""
    return path.suffix.lower() == ".gz"


def ending(path: Path) -> str:
    """The part of the name that says what the file holds: `.csv` of `reviews.CSV.gz`."""
    return (path.with_suffix("") if compressed(path) else path).suffix.lower()
