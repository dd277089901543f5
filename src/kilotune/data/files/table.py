"""Rows with the place where they stand, whatever kind of file they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kilotune.data.finding import Finding, about_rows, finding
from kilotune.errors import KilotuneError, some
from kilotune.messages.sentences import phrase


@dataclass(frozen=True, slots=True)
class Row:
    """One record, the line of the file where it starts (from 1), and that file in a folder."""

    line: int
    values: dict[str, Any]
    file: str = ""

    def id(self, source: str) -> str:
        """The row's name in messages: `data:2`, or `data:sub/file.csv:2` in a folder."""
        return row_id(source, self.file, self.line)


def row_id(source: str, file: str, line: int) -> str:
    """`data:2`, or `data:sub/file.csv:2` in a folder."""
    return f"{source}:{file}:{line}" if file else f"{source}:{line}"


@dataclass(frozen=True, slots=True)
class Unread:
    """A record that could not be read: where it starts, why, what it says, and how to fix it."""

    line: int
    why: str
    text: str
    fix: str
    file: str = ""

    def id(self, source: str) -> str:
        """The record's name in messages, as a Row's."""
        return row_id(source, self.file, self.line)


@dataclass(frozen=True, slots=True)
class Table:
    """A file's records in order, the names of its columns, and what reading it found.

    Values are what JSON knows, and bytes. `unread` are the records that could not be read.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    unread: tuple[Unread, ...] = ()

    def faults(self, source: str) -> list[Finding]:
        """One finding on all records that could not be read; none where there are none."""
        rows = [bad.id(source) for bad in self.unread]
        named = [phrase("row-why", row=bad.id(source), why=bad.why) for bad in self.unread]
        fix = self.unread[0].fix if self.unread else ""
        return about_rows("unreadable-row", rows, named=named, fix=fix)


def check_names(names: Sequence[str], where: str) -> None:
    """Raise KilotuneError for a header without any name, or with one twice."""
    named = [name for name in names if name]
    twice = [name for name in dict.fromkeys(named) if named.count(name) > 1]
    if twice or not named:
        raise KilotuneError(
            f"two columns are called '{twice[0]}'" if twice else "no column has a name",
            where=where,
            fix="Name every column in the first line, each otherwise",
        )


def unnamed(names: Sequence[str]) -> list[Finding]:
    """A note on the columns without a name, such as the numbers of rows that pandas writes."""
    places = [str(place) for place, name in enumerate(names, 1) if not name]
    if not places:
        return []
    return [finding("unnamed-column", places=places)]


@dataclass(slots=True)
class Read:
    """What reading the bytes of one file gives."""

    rows: list[Row]
    findings: list[Finding] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)

    def whole(self, where: str) -> None:
        """Raise KilotuneError on the records that could not be read, all together."""
        if self.unread:
            named = [f"{bad.line} ({bad.why})" for bad in self.unread]
            raise KilotuneError(
                f"rows that cannot be read: {some(named)}", where=where, fix=self.unread[0].fix
            )


def compressed(path: Path) -> bool:
    """Whether the name says that the file is gzipped."""
    return path.suffix.lower() == ".gz"


def ending(path: Path) -> str:
    """The part of the name that says what the file holds: `.csv` of `reviews.CSV.gz`."""
    return (path.with_suffix("") if compressed(path) else path).suffix.lower()
