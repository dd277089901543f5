"""Rows back to files, by the same endings that are read; never over an existing file."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError

Rows = Sequence[Mapping[str, Any]]


def check_writable(path: Path) -> None:
    """Raise KilotuneError now if `write_table` could not write `path` later."""
    if path.suffix.lower() not in WRITERS:
        raise KilotuneError(
            f"cannot write files ending in '{path.suffix}'",
            where=str(path),
            fix=f"Choose one of: {', '.join(WRITERS)}",
        )
    if path.exists():
        raise KilotuneError(
            "the file exists and is left as it is", where=str(path), fix="Choose another name"
        )
    if not path.parent.is_dir():
        raise KilotuneError("no such folder", where=str(path.parent), fix="Create it first")


def write_table(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Write `rows` as CSV, TSV, JSON Lines or JSON. Raises KilotuneError over an old file."""
    check_writable(path)
    write_atomically(path, WRITERS[path.suffix.lower()](columns, rows))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside `path`, then rename: readers never see half a file."""
    raw = content.encode("utf-8") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(raw)
    os.replace(part, path)


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


def _delimited(delimiter: str) -> Callable[[Sequence[str], Rows], str]:
    def write(columns: Sequence[str], rows: Rows) -> str:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    return write


def _lines(items: Iterable[Any]) -> list[str]:
    return [json.dumps(item, ensure_ascii=False) for item in items]


WRITERS: dict[str, Callable[[Sequence[str], Rows], str]] = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": lambda _, rows: "".join(f"{line}\n" for line in _lines(rows)),
    ".json": lambda _, rows: "[\n" + ",\n".join(_lines(rows)) + "\n]\n",
}
