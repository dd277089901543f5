"""CSV and TSV to rows."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kilotune.data.encodings import decode
from kilotune.data.finding import Finding
from kilotune.data.table import Read, Row
from kilotune.errors import KilotuneError, some

# csv's own words, where they need others.
WORDS = {
    "unexpected end of data": "a quote that is never closed",
    "',' expected after '\"'": "text behind a closing quote",
    "'\t' expected after '\"'": "text behind a closing quote",
    "';' expected after '\"'": "text behind a closing quote",
}


def read_csv(raw: bytes, where: str) -> Read:
    """Comma-separated rows; semicolons or tabs where the header has those and no comma."""
    text, findings = decode(raw, where)
    header = text.lstrip().partition("\n")[0]
    separator = next((mark for mark in ",;\t" if mark in header), ",")
    if separator != ",":
        name = {";": "semicolons", "\t": "tabs"}[separator]
        message = f"the columns are separated by {name}, and were read as that"
        findings.append(Finding("csv-separator", "note", (), message, "Nothing need be done"))
    return _rows(text, where, delimiter=separator), findings


def read_tsv(raw: bytes, where: str) -> Read:
    """Tab-separated rows, with CSV's quoting, or without any where that alone fits the file."""
    text, findings = decode(raw, where)
    try:
        return _rows(text, where, delimiter="\t"), findings
    except KilotuneError:
        try:
            rows = _rows(text, where, delimiter="\t", quoting=csv.QUOTE_NONE)
        except KilotuneError:
            rows = []
        if not rows:
            raise
    message = "quotes in the file are not CSV's, and were read as plain characters"
    findings.append(Finding("tsv-quotes", "note", (), message, "Nothing need be done"))
    return rows, findings


def _rows(text: str, where: str, **dialect: Any) -> list[Row]:
    rows: list[Row] = []
    ragged: list[str] = []
    broken: list[str] = []
    names: list[str] = []
    for line, cells in _records(text, dialect):
        if isinstance(cells, csv.Error):
            broken.append(f"line {line} ({WORDS.get(str(cells), str(cells))})")
        elif not cells:
            continue
        elif not names:
            names = _header(cells, f"{where}:{line}")
        elif len(cells) != len(names):
            ragged.append(f"line {line} has {len(cells)}")
        else:
            rows.append(Row(line, dict(zip(names, cells, strict=True))))
    faults = [f"rows without {len(names)} fields: {some(ragged)}"] if ragged else []
    faults += [f"rows that are quoted wrongly: {some(broken)}"] if broken else []
    if faults:
        raise KilotuneError(
            "; ".join(faults),
            where=where,
            fix="Quote fields that hold the separator, a quote or a line break; double quotes "
            "inside them",
        )
    return rows


def _records(text: str, dialect: dict[str, Any]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record with the line it starts on, or what is wrong with it."""
    with _any_field_size():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, **dialect)
        start = 1
        while True:
            try:
                yield start, next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield start, error
            start = reader.line_num + 1


def _header(cells: list[str], where: str) -> list[str]:
    names = [name.strip() for name in cells]
    if len(set(names)) < len(names) or not all(names):
        raise KilotuneError(
            "column names must be present and differ",
            where=where,
            fix="Name every column in the first line",
        )
    return names


@contextmanager
def _any_field_size() -> Iterator[None]:
    """csv refuses long fields by a limit that is global: lifted here alone."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
