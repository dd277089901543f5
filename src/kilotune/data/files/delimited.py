"""CSV and TSV to rows."""

import csv
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from kilotune.data.files.encodings import decode
from kilotune.data.files.table import Read, Row, Unread, check_names, unnamed
from kilotune.data.finding import Finding, finding

# The separators that are looked for, and what they are called.
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# Records that are looked at to tell the separator, and the characters they are looked for in.
SAMPLE_RECORDS, SAMPLE = 20, 200_000
FIX = "Quote fields that hold the separator, a quote or a line break; double quotes inside them"


def read_csv(raw: bytes, where: str) -> Read:
    """Rows separated by commas, or by whatever else the file plainly has, which is said."""
    text, findings = decode(raw, where)
    separator = _separator(text, ",")
    return _rows(text, where, findings + _said(separator, ","), delimiter=separator)


def read_tsv(raw: bytes, where: str) -> Read:
    """Tab-separated rows, with CSV's quoting, or without any where that alone fits the file."""
    text, findings = decode(raw, where)
    separator = _separator(text, "\t")
    findings += _said(separator, "\t")
    quoted = _rows(text, where, findings, delimiter=separator)
    if not quoted.unread:
        return quoted
    plain = _rows(text, where, [], delimiter=separator, quoting=csv.QUOTE_NONE)
    if plain.unread or not plain.rows:
        return quoted
    return replace(plain, findings=[*findings, *plain.findings, finding("tsv-quotes")])


def _separator(text: str, usual: str) -> str:
    """The separator that gives the first records the header's number of fields, of two or more."""
    best, score = usual, 0.0
    # The usual one first: it wins among equals.
    for mark in dict.fromkeys((usual, *SEPARATORS)):
        records = _records(text[:SAMPLE], {"delimiter": mark})
        sample = [cells for _, cells in islice(records, SAMPLE_RECORDS) if isinstance(cells, list)]
        counts = [len(cells) for cells in sample if cells]
        if counts and counts[0] > 1:
            alike = counts.count(counts[0]) / len(counts)
            best, score = (mark, alike) if alike > score else (best, score)
    return best


def _said(separator: str, usual: str) -> list[Finding]:
    if separator == usual:
        return []
    return [finding("csv-separator", separator=SEPARATORS[separator])]


def _rows(text: str, where: str, findings: list[Finding], **dialect: Any) -> Read:
    rows: list[Row] = []
    bad: list[Unread] = []
    names: list[str] = []
    mark = dialect["delimiter"]
    for line, cells in _records(text, dialect):
        if isinstance(cells, _Broken):
            bad.append(Unread(line, cells.why, cells.text, FIX))
        elif not cells:
            continue
        elif not names:
            names = _header(cells, f"{where}:{line}")
        elif len(cells) != len(names):
            count = f"{len(cells)} field{'s' * (len(cells) > 1)}, not {len(names)}"
            bad.append(Unread(line, count, mark.join(cells), FIX))
        else:
            values = zip(names, cells, strict=True)
            rows.append(Row(line, {name: cell for name, cell in values if name}))
    return Read(rows, findings + unnamed(names), bad)


@dataclass(frozen=True, slots=True)
class _Broken:
    """A record whose quotes are wrong: why, and its lines."""

    why: str
    text: str


def _records(text: str, dialect: dict[str, Any]) -> Iterator[tuple[int, list[str] | _Broken]]:
    """Each record with the line it starts on, or what is wrong with it."""
    lines = list(io.StringIO(text, newline=""))
    done = 0
    with _any_field_size():
        before = 0  # the lines that the reader did not see
        reader = csv.reader(iter(lines), strict=True, **dialect)
        while True:
            start = done + 1
            try:
                cells: list[str] | _Broken = next(reader)
                done = before + reader.line_num
            except StopIteration:
                return
            except csv.Error as error:
                done = before + reader.line_num
                why = (
                    "text behind a closing quote" if "expected after" in str(error) else str(error)
                )
                if why == "unexpected end of data":
                    # The quote took all that follows, where no other is: go on after its line.
                    why = "a quote that is never closed"
                    done = before = start
                    reader = csv.reader(islice(lines, before, None), strict=True, **dialect)
                cells = _Broken(why, "".join(lines[start - 1 : done]).rstrip("\r\n"))
            yield start, cells


def _header(cells: list[str], where: str) -> list[str]:
    names = [name.strip() for name in cells]
    check_names(names, where)
    return names


@contextmanager
def _any_field_size() -> Iterator[None]:
    """csv refuses long fields by a limit that is global: lifted here alone."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
