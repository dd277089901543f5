"""Rows back to files, by the same endings that are read; never over an existing file.

Whatever is written is there whole or not at all.
"""

import base64
import csv
import gzip
import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from kilotune.data.files.arrow import write_parquet
from kilotune.data.files.table import compressed, ending
from kilotune.data.files.workbook import write_workbook
from kilotune.errors import KilotuneError
from kilotune.system.os_errors import naming

Rows = Sequence[Mapping[str, Any]]
# As `to_json` wrote it: null for one that is not finite, and nothing beside it says why.
Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]

# What is written before it has its name: `.NAME.PID.part`. Beside it safetensors' own temporary
# files, which stand in checkpoints.
PART, OF_SAFETENSORS = re.compile(r"\..+\.\d+\.part"), re.compile(r"\.tmp[A-Za-z0-9]{6}")
CHECKPOINT = re.compile(r"checkpoint-\d+")
# Files may be read-only, as copies of an archived run are; Windows alone wants them writable.
TO_SYNC = os.O_RDWR if os.name == "nt" else os.O_RDONLY


def check_writable(path: Path, force: bool = False) -> None:
    """Raise KilotuneError now if `write_table` could not write `path` later."""
    if ending(path) not in WRITERS:
        raise KilotuneError(
            f"cannot write files ending in '{ending(path)}'",
            where=str(path),
            fix=f"Choose one of: {', '.join(WRITERS)}",
        )
    there = path.exists() or path.is_symlink()  # a link that leads nowhere is the user's too
    if path.is_dir() or (there and not force):
        raise KilotuneError(
            "the file exists and is left as it is", where=str(path), fix="Choose another name"
        )
    if not path.parent.is_dir():
        raise KilotuneError("no such folder", where=str(path.parent), fix="Create it first")
    if not os.access(path.parent, os.W_OK):  # said before the work, not after it
        raise KilotuneError(
            "no permission to write in the folder",
            where=str(path.parent),
            fix="Choose another place",
        )


def write_table(path: Path, columns: Sequence[str], rows: Rows, *, force: bool = False) -> None:
    """Write `rows` by the ending of `path`; see `table_bytes`.

    Raises KilotuneError over an old file, unless by `force`, and for rows that such a file cannot
    hold.
    """
    check_writable(path, force)
    write_atomically(path, table_bytes(path, columns, rows))


def table_bytes(path: Path, columns: Sequence[str], rows: Rows) -> bytes:
    """What `path` would hold by its ending: the rows, gzipped for `.gz`.

    In CSV, TSV and Excel a list or an object is written as JSON. Raises KilotuneError for rows that
    such a file cannot hold.
    """
    try:
        raw = WRITERS[ending(path)](columns, rows)
    except KilotuneError as error:
        raise KilotuneError(error.what, where=error.where or str(path), fix=error.fix) from error
    # Without the time of day, so that the same rows give the same bytes.
    return gzip.compress(raw, mtime=0) if compressed(path) else raw


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside `path`, then rename: readers never see half a file.

    Raises OSError, with `path` as its file name, where the system refuses; nothing is left behind
    then.
    """
    with written_atomically(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, of a file or folder, for libraries that write by themselves.

    What the block wrote there is on the disk before it has its name, so that a power cut leaves
    none of that name and half its content. It takes the place of a file, not of a folder. Raises
    OSError, with `path` as its file name, where the system refuses; nothing is left behind then.
    """
    part = temporary(path)
    try:
        with naming(path):
            yield part
            on_disk(part)
            os.replace(part, path)
    finally:
        remove(part)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together; where the last one is, the others are too.

    All are on the disk before the first has its name. A file of the same content that is there
    already (of a process that was killed at this) is left. Raises KilotuneError over any other
    content, OSError where the system refuses; no part of them is left behind then.
    """
    missing = {path: raw for path, raw in files.items() if not _written(path, raw)}
    with ExitStack() as undo:
        for path, raw in missing.items():
            undo.callback(remove, temporary(path))
            with naming(path):
                temporary(path).write_bytes(raw)
                on_disk(temporary(path))
        for path in missing:
            undo.callback(remove, path)
            with naming(path):
                os.replace(temporary(path), path)
        undo.pop_all()


def _written(path: Path, raw: bytes) -> bool:
    if not path.exists():
        return False
    if path.is_file() and path.read_bytes() == raw:
        return True
    raise KilotuneError(
        "the file exists and is left as it is", where=str(path), fix="Choose another name"
    )


def temporary(path: Path) -> Path:
    """What this process calls a file, or a folder, before it is whole."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def on_disk(path: Path) -> None:
    """Wait until a file, or all files of a folder, have left the system's memory."""
    for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
        if file.is_file():
            opened = os.open(file, TO_SYNC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there and can be removed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_parts(path: Path) -> None:
    """Remove what killed processes left half written of `path`, or of files in the folder `path`.

    For who alone writes there.
    """
    if not path.parent.is_dir():
        return
    own = re.compile(rf"\.{re.escape(path.name)}\.\d+\.part")
    for found in path.parent.iterdir():
        if own.fullmatch(found.name):
            remove(found)
    if path.is_dir():
        remove_leftovers(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left half written in `folder` and below: temporary files alone.

    For the holder of the folder's lock, beside whom nobody writes there. A folder within that has
    a lock of its own is left to its holder.
    """
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here != folder and any(name.endswith(".lock") for name in names):
            folders.clear()
            continue
        in_checkpoint = CHECKPOINT.fullmatch(here.name)
        for name in (*folders, *names):
            if PART.fullmatch(name) or (in_checkpoint and OF_SAFETENSORS.fullmatch(name)):
                remove(here / name)
        folders[:] = [name for name in folders if (here / name).is_dir()]


def append_line(path: Path, line: str) -> None:
    """Add a line to a log, behind its last whole one: what a killed process left of one goes."""
    with naming(path), path.open("ab+") as file:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(f"{line}\n".encode())


def to_json(content: Any, indent: int | None = 2) -> str:
    """JSON with dataclasses, models and paths spelled out; null for numbers that are none (NaN)."""
    return json.dumps(_plain(content), ensure_ascii=False, indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping | BaseModel):
        return {key: _plain(item) for key, item in dict(value).items()}
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
