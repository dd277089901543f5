"""Rows back to files, by the same endings that are read; never over an existing file."""

import base64
import csv
import gzip
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from kilotune.data.arrow import write_parquet
from kilotune.data.table import compressed, ending
from kilotune.data.workbook import write_workbook
from kilotune.errors import KilotuneError

Rows = Sequence[Mapping[str, Any]]


def check_writable(path: Path, force: bool = False) -> None:
    """Raise KilotuneError now if `write_table` could not write `path` later."""
    if ending(path) not in WRITERS:
        raise KilotuneError(
            f"cannot write files ending in '{ending(path)}'",
            where=str(path),
            fix=f"Choose one of: {', '.join(WRITERS)}",
        )
    if path.is_dir() or (path.exists() and not force):
        raise KilotuneError(
            "the file exists and is left as it is", where=str(path), fix="Choose another name"
        )
    if not path.parent.is_dir():
        raise KilotuneError("no such folder", where=str(path.parent), fix="Create it first")
    if not os.access(path.parent, os.W_OK):  # said before the work, not after it
        raise KilotuneError(
            "the folder may not be written", where=str(path.parent), fix="Choose another place"
        )


def write_table(path: Path, columns: Sequence[str], rows: Rows, *, force: bool = False) -> None:
    """Write `rows` by the ending of `path`, gzipped for `.gz`.

    In CSV, TSV and Excel a list or an object is written as JSON. Raises KilotuneError over an old
    file, unless by `force`, and for rows that such a file cannot hold.
    """
    check_writable(path, force)
    try:
        raw = WRITERS[ending(path)](columns, rows)
    except KilotuneError as error:
        raise KilotuneError(error.what, where=error.where or str(path), fix=error.fix) from error
    # Without the time of day, so that the same rows give the same bytes.
    write_atomically(path, gzip.compress(raw, mtime=0) if compressed(path) else raw)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside `path`, then rename: readers never see half a file.

    On the disk before it has its name, so that a power cut leaves none of that name and half its
    content. Raises OSError, with `path` as its file name, where the system refuses; nothing is left
    behind then.
    """
    raw = content.encode("utf-8") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        error.filename = str(path)  # a full disk comes without one
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a log, behind its last whole one: what a killed process left of one goes."""
    with path.open("ab+") as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(f"{line}\n".encode())


def leftovers(folder: Path) -> list[Path]:
    """What processes that were killed have left in `folder` of files they had begun."""
    return list(folder.glob(".*.part"))


def to_json(content: Any, indent: int | None = 2) -> str:
    """JSON with dataclasses and paths spelled out; null for numbers that are none (NaN)."""
    return json.dumps(_plain(content), ensure_ascii=False, indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _delimited(delimiter: str) -> Callable[[Sequence[str], Rows], bytes]:
    def write(columns: Sequence[str], rows: Rows) -> bytes:
        cells = _cells(columns, rows)
        # csv would leave a lone "\r" unquoted, and reading would take it for a line's end.
        returns = any(isinstance(c, str) and "\r" in c for line in cells for c in line)
        text = io.StringIO(newline="")
        writer = csv.writer(
            text,
            delimiter=delimiter,
            lineterminator="\n",
            quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL,
        )
        writer.writerow(columns)
        writer.writerows(cells)
        return text.getvalue().encode()

    return write


def _cells(columns: Sequence[str], rows: Rows) -> list[list[Any]]:
    """The rows as a table of texts and numbers: what is nested becomes JSON."""
    return [[_cell(row.get(name)) for name in columns] for row in rows]


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=_base64)
    return _base64(value) if isinstance(value, bytes) else value


def _base64(value: Any) -> str:
    """Bytes as text. Nothing else that readers give is unknown to JSON."""
    return base64.b64encode(value).decode()


def _lines(rows: Iterable[Any]) -> list[str]:
    return [json.dumps(row, ensure_ascii=False, default=_base64) for row in rows]


WRITERS: dict[str, Callable[[Sequence[str], Rows], bytes]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": lambda _, rows: "".join(f"{line}\n" for line in _lines(rows)).encode(),
    ".json": lambda _, rows: ("[\n" + ",\n".join(_lines(rows)) + "\n]\n").encode(),
    ".parquet": write_parquet,
    ".xlsx": lambda columns, rows: write_workbook(columns, _cells(columns, rows)),
}
