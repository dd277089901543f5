"""CSV and TSV to rows."""

import csv
import io
import re
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
# Excel's first line, and how many lines there may be of a title.
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
MOST_TITLES = 3
# The characters that titles are looked for in.
TITLE_SAMPLE = 20_000
# A name of so many words is a text.
PROSE_WORDS = 5
FIX = "Quote fields that hold the separator, a quote or a line break; double quotes inside them"


def read_csv(raw: bytes, where: str) -> Read:
    """Rows separated by commas, or by whatever else the file plainly has, which is said."""
    text, findings = decode(raw, where)
    if match := SEPARATOR_LINE.match(text):
        # Excel's own line, which says the separator. What is blank counts as a line all the same.
        rest = text[match.end() :]
        return _rows(rest, where, findings, before=1, delimiter=match[1])
    text, separator, titles = _without_titles(text, ",")
    findings += titles + _said(separator, ",")
    return _rows(text, where, findings, delimiter=separator)


def read_tsv(raw: bytes, where: str) -> Read:
    """Tab-separated rows, with CSV's quoting, or without any where that alone fits the file."""
    text, findings = decode(raw, where)
    text, separator, titles = _without_titles(text, "\t")
    findings += titles + _said(separator, "\t")
    quoted = _rows(text, where, findings, delimiter=separator)
    if not quoted.unread:
        return quoted
    plain = _rows(text, where, [], delimiter=separator, quoting=csv.QUOTE_NONE)
    if plain.unread or not plain.rows:
        return quoted
    return replace(plain, findings=[*findings, *plain.findings, finding("tsv-quotes")])


def _without_titles(text: str, usual: str) -> tuple[str, str, list[Finding]]:
    """The text with the lines of a title above the names blank, the separator, and a note on them.

    A title stands alone in its line, where the names and the rows below are of several fields.
    """
    separator = _separator(text, usual)
    lines = io.StringIO(text[:TITLE_SAMPLE], newline="").readlines()
    for count in range(1, min(MOST_TITLES + 1, len(lines) - 1) + 1):
        above, below = lines[:count], "".join(lines[count:])
        if len(_filled(above[-1], separator)) > 1:
            break
        mark = _separator(below, usual)
        if _is_table(below, mark) and all(_may_be_title(line, mark) for line in above):
            titles = [cell for line in above for cell in _filled(line, mark)]
            rest = "\n" * count + text[sum(map(len, above)) :]
            return rest, mark, [finding("title-lines", titles=titles)] if titles else []
    return text, separator, []


def _may_be_title(line: str, mark: str) -> bool:
    """Whether a line is blank, or one cell that stands first and is no name of a column."""
    filled = _filled(line, mark)
    alone = mark not in line or (line[:1] != mark and " " in "".join(filled))
    return not filled or (len(filled) == 1 and alone)


def _filled(line: str, mark: str) -> list[str]:
    """The cells of a line that hold something."""
    return [cell.strip(' "') for cell in line.strip("\ufeff\r\n").split(mark) if cell.strip(' "')]


def _is_table(text: str, mark: str) -> bool:
    """Whether a text begins with a line of several short names, and all below have as many."""
    records = _records(text[:SAMPLE], {"delimiter": mark})
    sample = [cells for _, cells in islice(records, SAMPLE_RECORDS) if cells]
    if len(text) > TITLE_SAMPLE // 2:
        sample = sample[:-1]  # which may be cut
    rows = [cells for cells in sample if isinstance(cells, list)]
    names = [cell for cell in rows[0] if cell.strip()] if len(rows) == len(sample) > 1 else []
    return (
        len({name.strip() for name in names}) == len(names) > 1
        and all(len(name.split()) < PROSE_WORDS for name in names)
        and all(len(cells) == len(rows[0]) for cells in rows)
    )


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


def _rows(text: str, where: str, findings: list[Finding], before: int = 0, **dialect: Any) -> Read:
    """The rows of a text that begins `before` lines down in its file."""
    rows: list[Row] = []
    bad: list[Unread] = []
    names: list[str] = []
    mark = dialect["delimiter"]
    for number, cells in _records(text, dialect):
        line = number + before
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
