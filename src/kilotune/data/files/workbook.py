"""Excel workbooks to rows and back."""

import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any

from kilotune.data.files.bounds import ROW, VALUE, Room, TooLargeError
from kilotune.data.files.table import Read, Row, check_names, unnamed
from kilotune.data.finding import finding
from kilotune.errors import KilotuneError, some

# How the old binary format begins, and a workbook behind a password.
OLD_WORKBOOK = bytes.fromhex("d0cf11e0a1b11ae1")
CELL_LENGTH = 32_767
# What an empty cell takes.
CELL = 8
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
    filled = {name: rows for name, rows in sheets.items() if len(rows) > 1}
    if not filled:
        return Read([])
    name, rows = next(iter(filled.items()))
    findings = []
    if len(filled) > 1:
        others = ", ".join(f"'{other}'" for other in list(filled)[1:])
        findings.append(finding("several-sheets", sheet=name, others=others))
    header, *rest = rows.items()
    names = ["" if cell is None else str(cell).strip() for cell in header[1]]
    names += [""] * (max(len(cells) for _, cells in rest) - len(names))
    check_names(names, f"{where}, sheet '{name}', row {header[0]}")
    filled_in = {i for _, cells in rest for i, cell in enumerate(cells) if cell is not None}
    # A column that is empty but for its place is nothing.
    findings += unnamed([name or "" if i in filled_in else "-" for i, name in enumerate(names)])
    return Read(_rows(names, rest), findings)


def _unpacked(raw: bytes) -> int:
    """The bytes of all parts of a workbook; zipfile gives no more of one than is said there."""
    with zipfile.ZipFile(io.BytesIO(raw)) as parts:
        return sum(part.file_size for part in parts.infolist())


def _sheets(raw: bytes) -> dict[str, dict[int, list[Any]]]:
    """The rows of every sheet that hold anything, by their number."""
    from openpyxl import load_workbook

    book = load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
    sheets: dict[str, dict[int, list[Any]]] = {}
    room = Room()
    for sheet in book.worksheets:
        # Programs write wrong dimensions, and openpyxl would believe them.
        sheet.reset_dimensions()
        sheets[sheet.title] = {}
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if any(cell is not None for cell in cells):
                filled = sum(cell is not None for cell in cells)
                # Up to the last one, however far out it is.
                room.take(ROW + CELL * len(cells) + VALUE * filled)
                sheets[sheet.title][number] = [_plain(cell) for cell in cells]
    return sheets


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
