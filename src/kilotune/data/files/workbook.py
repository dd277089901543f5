"""Excel workbooks to rows and back."""

import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from kilotune.data.files.bounds import ROW, VALUE, Room, TooLargeError
from kilotune.data.files.table import Read, Row, check_names, unnamed
from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError, some

# How the old binary format begins, and a workbook behind a password.
OLD_WORKBOOK = bytes.fromhex("d0cf11e0a1b11ae1")
CELL_LENGTH = 32_767
# What an empty cell takes.
CELL = 8
# How many rows there may be of a title.
MOST_TITLES = 3
# And how many words a column's name.
WORDS = 4
# In a sheet's XML: cells merged down a column, cells, and of a cell its formula and stored value.
MERGED = re.compile(rb'<(?:\w+:)?mergeCell ref="\$?([A-Z]{1,3})\$?(\d+):\$?[A-Z]{1,3}\$?(\d+)"')
CELLS = re.compile(rb'<(?:\w+:)?c r="([A-Z]{1,3})\d+"[^>/]*>(.*?)</(?:\w+:)?c>', re.DOTALL)
FORMULA, STORED = re.compile(rb"<(?:\w+:)?f[ >/]"), re.compile(rb"<(?:\w+:)?v>[^<]")
# Where openpyxl says when a workbook was made, and how.
CORE, TIME = "docProps/core.xml", re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def read_workbook(raw: bytes, where: str) -> Read:
    """The first sheet that has a header and rows; a row's number is the sheet's.

    Raises KilotuneError for a file that is no workbook, or one behind a password.
    """
    if raw.startswith(OLD_WORKBOOK):
        raise KilotuneError(
            "an old or password-protected Excel file", where=where, fix="Save it as plain .xlsx"
        )
    try:
        Room().take(_unpacked(raw))
        sheets = _sheets(raw)
    except (MemoryError, TooLargeError):
        raise
    except Exception as error:  # openpyxl lets through whatever its parts stumble over
        raise KilotuneError(
            "not a complete Excel workbook", where=where, fix="Save it again as .xlsx"
        ) from error
    filled = {name: sheet for name, sheet in sheets.items() if len(sheet.rows) > 1}
    if not filled:
        return Read([])
    name, sheet = next(iter(filled.items()))
    rows, findings = sheet.rows, []
    if len(filled) > 1:
        others = ", ".join(f"'{other}'" for other in list(filled)[1:])
        findings.append(finding("several-sheets", sheet=name, others=others))
    titles, rows = _without_titles(rows)
    if titles:
        findings.append(finding("title-lines", titles=titles))
    header, *rest = rows.items()
    names = ["" if cell is None else str(cell).strip() for cell in header[1]]
    names += [""] * (max(len(cells) for _, cells in rest) - len(names))
    check_names(names, f"{where}, sheet '{name}', row {header[0]}")
    filled_in = {i for _, cells in rest for i, cell in enumerate(cells) if cell is not None}
    findings += _said_of_cells(sheet, names)
    # A column that is empty but for its place is nothing.
    findings += unnamed([name or "" if i in filled_in else "-" for i, name in enumerate(names)])
    return Read(_rows(names, rest), findings)


def _without_titles(rows: dict[int, list[Any]]) -> tuple[list[str], dict[int, list[Any]]]:
    """What stands alone in the rows above the names, and the rows from the names on."""
    numbers = list(rows)
    titles: list[str] = []
    for place, number in enumerate(numbers[: min(MOST_TITLES, len(numbers) - 2)]):
        first, *others = rows[number]
        if others.count(None) < len(others) or not isinstance(first, str):
            break
        titles.append(first)
        below = {n: rows[n] for n in numbers[place + 1 :]}
        if sum(cell is not None for cell in rows[numbers[place + 1]]) > 1:
            return (titles, below) if _begins_with_names(below) else ([], rows)
    return [], rows


def _begins_with_names(rows: dict[int, list[Any]]) -> bool:
    """Whether the first row holds short texts, none of which stands below it as a value again.

    Else what stands alone above it is the name of the only column that has one.
    """
    names, *values = rows.values()
    return all(
        isinstance(name, str)
        and len(name.split()) <= WORDS
        and not any(column < len(cells) and cells[column] == name for cells in values)
        for column, name in enumerate(names)
        if name is not None
    )


def _unpacked(raw: bytes) -> int:
    """The bytes of all parts of a workbook; zipfile gives no more of one than is said there."""
    with zipfile.ZipFile(io.BytesIO(raw)) as parts:
        return sum(part.file_size for part in parts.infolist())


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The rows of a sheet that hold anything, by their number, and what their cells leave unsaid.

    `merged` are the numbers of columns with cells over several rows, whose value every row has
    here; `unstored` count, by column, the formulas whose value was never worked out.
    """

    rows: dict[int, list[Any]]
    merged: tuple[int, ...]
    unstored: dict[int, int]


def _sheets(raw: bytes) -> dict[str, _Sheet]:
    """Every sheet by its name."""
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
    sheets: dict[str, _Sheet] = {}
    room = Room()
    for sheet in book.worksheets:
        # Programs write wrong dimensions, and openpyxl would believe them.
        sheet.reset_dimensions()
        rows: dict[int, list[Any]] = {}
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if any(cell is not None for cell in cells):
                filled = sum(cell is not None for cell in cells)
                # Up to the last one, however far out it is.
                room.take(ROW + CELL * len(cells) + VALUE * filled)
                rows[number] = [_plain(cell) for cell in cells]
        with zipfile.ZipFile(io.BytesIO(raw)) as parts:
            written = parts.read(sheet._worksheet_path)  # has what openpyxl leaves out here
        sheets[sheet.title] = _Sheet(rows, _spread(written, rows), _unstored(written))
    return sheets


def _spread(written: bytes, rows: dict[int, list[Any]]) -> tuple[int, ...]:
    """Give every row the value of a cell that is merged over several; the columns of such cells."""
    columns = set()
    for letters, first, last in MERGED.findall(written):
        column = _number(letters)
        top = rows.get(int(first), [])
        value = top[column] if column < len(top) else None
        # Rows that hold nothing else are no rows.
        for number in [n for n in rows if int(first) < n <= int(last)] if value is not None else ():
            cells = rows[number]
            cells += [None] * (column + 1 - len(cells))
            cells[column] = value
            columns.add(column)
    return tuple(sorted(columns))


def _unstored(written: bytes) -> dict[int, int]:
    """How many cells of each column hold a formula and no value of it."""
    if b"<f" not in written and b":f" not in written:
        return {}
    found = (
        _number(letters)
        for letters, inside in CELLS.findall(written)
        if FORMULA.search(inside) and not STORED.search(inside)
    )
    return dict(Counter(found))


def _number(letters: bytes) -> int:
    """The number of a column, from 0: AA is 26."""
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number - 1


def _said_of_cells(sheet: _Sheet, names: Sequence[str]) -> list[Finding]:
    """What cells hold that is no value: formulas never worked out, and values of several rows."""

    def named(columns: Iterable[int]) -> list[str]:
        return [names[c] for c in columns if c < len(names) and names[c]]

    found = []
    if merged := named(sheet.merged):
        found.append(finding("merged-cells", columns=merged))
    if unstored := named(sheet.unstored):
        cells = sum(count for column, count in sheet.unstored.items() if column < len(names))
        found.append(finding("formula-unstored", columns=unstored, cells=cells))
    return found


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime):
        return (cell if cell.time() != time() else cell.date()).isoformat()
    if isinstance(cell, date | time):
        return cell.isoformat()
    return str(cell) if isinstance(cell, timedelta) else cell


def _rows(names: Sequence[str], rows: Iterable[tuple[int, Sequence[Any]]]) -> list[Row]:
    return [
        Row(
            number,
            {name: cells[i] if i < len(cells) else None for i, name in enumerate(names) if name},
        )
        for number, cells in rows
    ]


def write_workbook(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """One sheet; the same rows give the same bytes.

    Raises KilotuneError for texts that a cell cannot hold.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    bad = [
        str(number)
        for number, cells in enumerate(rows, 2)
        for cell in cells
        if isinstance(cell, str)
        and (len(cell) > CELL_LENGTH or "\r" in cell or ILLEGAL_CHARACTERS_RE.search(cell))
    ]
    if bad:
        raise KilotuneError(
            f"texts over {CELL_LENGTH:,} characters or with control characters, which Excel's "
            f"cells cannot hold, in row {some(bad)}",
            fix="Write .jsonl or .parquet instead",
        )
    book = Workbook(write_only=True)
    sheet = book.create_sheet("data")
    for cells in (columns, *rows):
        line = [WriteOnlyCell(sheet, value=cell) for cell in cells]
        for made in line:
            if made.data_type in {"f", "e"}:
                made.data_type = "s"  # a text that begins with "=" or reads "#N/A" is a text
        sheet.append(line)
    out = io.BytesIO()
    book.save(out)
    return _without_times(out)


def _without_times(book: io.BytesIO) -> bytes:
    """The same workbook, without the time at which it was made."""
    out = io.BytesIO()
    with zipfile.ZipFile(book) as parts, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in parts.namelist():
            raw = parts.read(name)
            if name == CORE:
                raw = TIME.sub(b"1980-01-01T00:00:00Z", raw)
            made.writestr(zipfile.ZipInfo(name), raw, zipfile.ZIP_DEFLATED)  # of 1980 by default
    return out.getvalue()
