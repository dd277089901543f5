"""Files to rows, each with its line number. Nothing here knows what a label is."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError, some


@dataclass(frozen=True, slots=True)
class Row:
    """One record, the line of the file where it starts (from 1), and that file in a folder."""

    line: int
    values: dict[str, Any]
    file: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A file's records in order, the names of its columns, and what reading it found."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()


def read_table(path: Path) -> Table:
    """Read CSV, TSV, JSON Lines or a JSON list of objects, by the file's ending.

    Text is UTF-8, with or without a byte-order mark. Raises KilotuneError for a file that is
    missing, empty, of another kind or malformed; malformed rows are named together.
    """
    reader = READERS.get(path.suffix.lower())
    if path.is_dir() or not path.exists():
        problem = "is a folder, not a file" if path.is_dir() else "no such file"
        raise KilotuneError(problem, where=str(path), fix="Check the path")
    if reader is None:
        raise KilotuneError(
            f"cannot read files ending in '{path.suffix}'",
            where=str(path),
            fix=f"Convert it to one of: {', '.join(READERS)}",
        )
    rows = tuple(reader(path, _decode(path)))
    if not rows:
        raise KilotuneError("no rows in the file", where=str(path), fix="Add labelled examples")
    columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
    return Table(path, columns, rows)


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    if not raw.strip():
        raise KilotuneError("the file is empty", where=str(path), fix="Add labelled examples")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise KilotuneError(
            "not UTF-8 text", where=f"{path}:{line}", fix="Save the file as UTF-8"
        ) from error


def _delimited(delimiter: str, path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    ragged: list[str] = []
    end = 0
    try:
        names = [name.strip() for name in next(reader)]
        if len(set(names)) < len(names) or not all(names):
            raise KilotuneError(
                "column names must be present and differ",
                where=f"{path}:1",
                fix="Name every column in the first line",
            )
        end = reader.line_num
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                ragged.append(f"line {start} has {len(cells)}")
                continue
            yield Row(start, dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        raise KilotuneError(
            str(error), where=f"{path}:{end + 1}", fix="Quote the field there"
        ) from error
    if ragged:
        raise KilotuneError(
            f"rows without {len(names)} fields: {some(ragged)}",
            where=str(path),
            fix="Quote fields that hold the separator or a line break",
        )


def _csv(path: Path, text: str) -> Iterator[Row]:
    return _delimited(",", path, text)


def _tsv(path: Path, text: str) -> Iterator[Row]:
    return _delimited("\t", path, text)


def _json_lines(path: Path, text: str) -> Iterator[Row]:
    bad: list[str] = []
    # Only "\n" ends a record: str.splitlines would also cut at separators inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if isinstance(values, dict):
            yield Row(number, values)
        else:
            bad.append(str(number))
    if bad:
        raise KilotuneError(
            f"not a JSON object on line {some(bad)}",
            where=str(path),
            fix="Write one JSON object a line",
        )


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        items = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise KilotuneError(
            "not valid JSON", where=f"{path}:{line}", fix="Check commas and quotes there"
        ) from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise KilotuneError(
            "a JSON file must hold a list of objects",
            where=str(path),
            fix='Write it as [{"text": …, "label": …}, …]',
        )
    # A JSON list has no lines of its own: count its items, from 1.
    for number, values in enumerate(items, 1):
        yield Row(number, values)


READERS = {".csv": _csv, ".tsv": _tsv, ".jsonl": _json_lines, ".json": _json}
