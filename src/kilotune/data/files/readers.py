"""Files and folders to rows, each with its line number. Nothing here knows what a label is."""

import gzip
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kilotune.data.files.arrow import is_saved_dataset, read_parquet, read_saved_dataset
from kilotune.data.files.bounds import bounded, check_text, read_bounded
from kilotune.data.files.delimited import read_csv, read_tsv
from kilotune.data.files.json_rows import read_json, read_json_lines
from kilotune.data.files.table import Read, Row, Table, compressed, ending
from kilotune.data.files.workbook import read_workbook
from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError
from kilotune.messages.sentences import phrase

__all__ = ["READERS", "Row", "Table", "no_such_file", "read_table"]

READERS: dict[str, Callable[[bytes, str], Read]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".parquet": read_parquet,
    ".xlsx": read_workbook,
}
# Those whose readers count what they unpack.
UNPACKED = {".parquet", ".xlsx"}


def read_table(path: Path, *, partial: bool = False) -> Table:
    """Read a data file by its ending (`.gz` behind it too), or a folder.

    A folder is what `datasets`' save_to_disk wrote, or any number of data files, read in order of
    their names. Raises KilotuneError for what is missing, empty, of another kind or malformed;
    malformed rows of a file are named together. With `partial` those are left to the table's
    `unread`, where others can be read.
    """
    if not os.path.exists(path):  # unlike Path's, false for a name no file can have
        raise no_such_file(path, "Check the path")
    if not path.is_dir():
        read = _read_file(path, partial)
    elif is_saved_dataset(path):
        read = read_saved_dataset(path)
    else:
        read = _read_folder(path, partial)
    if not read.rows:
        raise KilotuneError("no rows in the file", where=str(path), fix="Add labelled examples")
    columns = tuple(dict.fromkeys(name for row in read.rows for name in row.values))
    return Table(path, columns, tuple(read.rows), tuple(read.findings), tuple(read.unread))


def no_such_file(path: Path, fix: str) -> KilotuneError:
    """The error of a file that is not there; one may have been given a weight, as in a.jsonl:2."""
    file, _, weight = str(path).rpartition(":")
    if file and re.fullmatch(r"\d+(\.\d+)?", weight) and os.path.exists(file):
        return KilotuneError(
            f"files have no weights, and there is no file of that name; {file} is there",
            where=str(path),
            fix="Put the files into one folder and give that, with a column of weights in their "
            "rows: --column weight=NAME",
        )
    return KilotuneError("no such file", where=str(path), fix=fix)


def _read_file(path: Path, partial: bool) -> Read:
    if not path.is_file():  # reading a pipe would wait for whoever writes to it
        raise KilotuneError("not a regular file", where=str(path), fix="Write its content to one")
    kind = ending(path)
    if kind not in READERS:
        old = " (Excel's old format)" if kind == ".xls" else ""
        raise KilotuneError(
            f"cannot read files ending in '{kind}'{old}",
            where=str(path),
            fix="Save it as .xlsx" if old else f"Convert it to one of: {', '.join(READERS)}",
        )
    with bounded(path):
        raw = _bytes(path)
        if not raw or raw.isspace():
            raise KilotuneError("the file is empty", where=str(path), fix="Add labelled examples")
        if kind not in UNPACKED:
            check_text(raw)
        read = READERS[kind](raw, str(path))
    if not (partial and read.rows):
        read.whole(str(path))
    return read


def _bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if compressed(path) else path.open("rb") as file:
            return read_bounded(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise KilotuneError(
            "not a complete gzip file", where=str(path), fix="Compress it again"
        ) from error
    except OSError as error:
        raise KilotuneError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            fix="Check its permissions",
        ) from error


def _read_folder(folder: Path, partial: bool) -> Read:
    """Every data file in `folder` and below; what is not one is said, hidden files apart."""
    files, others = _walk(folder)
    every = Read([])
    faults: list[KilotuneError] = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            read = read_saved_dataset(file) if file.is_dir() else _read_file(file, partial)
        except KilotuneError as error:
            faults.append(error)
            continue
        every.rows += [replace(row, file=name) for row in read.rows]
        every.findings += [replace(f, values={**f.values, "file": name}) for f in read.findings]
        every.unread += [replace(bad, file=name) for bad in read.unread]
    if partial and every.rows:
        every.findings += [
            finding("unreadable-file", text=f"{fault.where}: {fault.what}", fix=fault.fix)
            for fault in faults
        ]
        faults = []
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "; ".join(f"{fault.where}: {fault.what}" for fault in faults)
        raise KilotuneError(told, where=str(folder), fix=faults[0].fix)
    if not files:
        raise KilotuneError(
            "no data files in the folder", where=str(folder), fix=f"Add {', '.join(READERS)} files"
        )
    every.findings += _said(others, folder)
    return every


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """The data files (and saved datasets) of a folder, and the other files, in order."""
    files: list[Path] = []
    others: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=_refuse):
        here = Path(base)
        saved = [name for name in folders if is_saved_dataset(here / name)]
        folders[:] = [name for name in folders if name not in saved and not _hidden(name)]
        files += [here / name for name in saved if not _hidden(name)]
        for name in filter(lambda name: not _hidden(name), names):
            known = ending(here / name) in {*READERS, ".xls"}
            (files if known else others).append(here / name)
    return sorted(files), sorted(others)


def _refuse(error: OSError) -> None:
    raise KilotuneError(
        f"cannot be read: {error.strerror}", where=str(error.filename), fix="Check its permissions"
    ) from error


def _hidden(name: str) -> bool:
    """Hidden files, and the lock files that Excel leaves."""
    return name.startswith((".", "~$"))


def _said(others: list[Path], folder: Path) -> list[Finding]:
    if not others:
        return []
    endings = Counter(path.suffix.lower() or "no ending" for path in others).most_common(5)
    kinds = [phrase("count-of", count=count, kind=kind) for kind, count in endings]
    names = [path.relative_to(folder).as_posix() for path in others]
    return [finding("files-not-read", kinds=kinds, named=names)]
