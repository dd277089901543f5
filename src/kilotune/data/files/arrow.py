"""Parquet files and folders written by `datasets`' save_to_disk, to rows and back."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from kilotune.data.files.bounds import COPIES, ROW, VALUE, Room, bounded
from kilotune.data.files.json_rows import parse
from kilotune.data.files.table import Read, Row
from kilotune.data.finding import finding
from kilotune.errors import KilotuneError

ROWS_AT_ONCE = 1_000


def read_parquet(raw: bytes, where: str) -> Read:
    """The rows of a Parquet file, from 1; numbers of `datasets`' ClassLabel become names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        features = _features_in(file.schema_arrow.metadata or {})
        return Read(_rows(file.iter_batches(ROWS_AT_ONCE), features))
    except MemoryError:  # Arrow's own is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise KilotuneError(
            f"not a readable Parquet file ({_first_line(error)})", where=where, fix="Write it again"
        ) from error


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder is what `datasets`' save_to_disk writes: one dataset or several splits."""
    return (path / "dataset_dict.json").is_file() or (
        (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    )


def read_saved_dataset(path: Path) -> Read:
    """The rows of a folder written by save_to_disk; of several splits the one called train.

    Raises KilotuneError for a folder that is not whole.
    """
    if not (path / "dataset_dict.json").is_file():
        return Read(_read_split(path))
    splits = _json(path / "dataset_dict.json").get("splits")
    names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
    name = "train" if "train" in names or len(names) != 1 else names[0]
    if name not in names:
        raise KilotuneError(
            f"several splits and none called train: {', '.join(names) or 'none'}",
            where=str(path),
            fix="Name the folder of one of them",
        )
    if len(names) == 1:
        return Read(_read_split(path / name))
    others = ", ".join(f"'{other}'" for other in names if other != name)
    note = finding("several-splits", split=name, others=others, folder=path.name)
    return Read(_read_split(path / name), [note])


def _read_split(path: Path) -> list[Row]:
    import pyarrow as pa

    state, info = _json(path / "state.json"), _json(path / "dataset_info.json")
    listed = state.get("_data_files")
    files = [item.get("filename") for item in listed if isinstance(item, dict)] if listed else []
    inside = [path / name for name in files if isinstance(name, str) and Path(name).name == name]
    if not inside or len(inside) != len(files) or state.get("_indices_data_files"):
        raise KilotuneError(
            "not a folder that save_to_disk wrote",
            where=str(path / "state.json"),
            fix="Save the dataset again; call flatten_indices() first",
        )
    features = info.get("features")
    rows: list[Row] = []
    for file in inside:
        try:
            with (
                bounded(file),
                pa.memory_map(str(file)) as source,
                pa.ipc.open_stream(source) as stream,
            ):
                found = _rows(stream, features if isinstance(features, dict) else {}, len(rows))
        except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
            raise KilotuneError(
                f"not a readable Arrow file ({_first_line(error)})",
                where=str(file),
                fix="Save the dataset again",
            ) from error
        rows += found
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise KilotuneError(
            "missing or not valid JSON", where=str(path), fix="Save the dataset again"
        )
    return content


def _features_in(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """What `datasets` wrote about the columns into a Parquet file; nothing where it did not."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _rows(batches: Iterable[Any], features: Mapping[str, Any], before: int = 0) -> list[Row]:
    rows: list[Row] = []
    room = Room()
    for batch in batches:
        # What is said once for a million rows takes no room in the file.
        room.take(sum(map(_size, batch.columns)) + ROW * batch.num_rows)
        names = batch.schema.names
        if len(set(names)) < len(names):
            raise ValueError("two columns of one name")
        columns = [
            _values(column, batch.schema.field(name).type, features.get(name))
            for name, column in zip(names, batch.columns, strict=True)
        ]
        start = before + len(rows) + 1
        rows += [
            Row(number, dict(zip(names, cells, strict=True)))
            for number, cells in enumerate(zip(*columns, strict=True), start)
        ]
    return rows


def _size(column: Any) -> int:
    """What a column's values take; one that is said once for many rows, once for each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, types, objects = column.type, pa.types, VALUE * len(column)
    if types.is_list(kind) or types.is_large_list(kind):
        return objects + _size(column.flatten())
    if types.is_struct(kind):
        return objects + sum(map(_size, column.flatten()))
    if not types.is_dictionary(kind):
        return objects + int(column.nbytes) * (COPIES if _is_json(kind) else 1)
    if not _is_sized(kind.value_type):
        return objects + int(column.dictionary_decode().nbytes)
    lengths = pc.binary_length(column.dictionary)
    return objects + int(pc.sum(lengths.take(column.indices)).as_py() or 0)


def _is_sized(kind: Any) -> bool:
    """Whether a type's values are texts or bytes, each of its own length."""
    import pyarrow as pa

    types = pa.types
    sized = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in sized)


def _values(column: Any, kind: Any, feature: Any) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        # Nanoseconds would need pandas.
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    values: list[Any] = column.to_pylist()
    if _holds_json(kind):
        values = [_decoded(value, kind) for value in values]
    if not _is_plain(kind):
        values = [_plain(value) for value in values]
    if _has_names(feature):
        values = [_named(value, feature) for value in values]
    return values


def _holds_json(kind: Any) -> bool:
    """Whether a type has Arrow's JSON in it, at any depth."""
    return _is_json(kind) or any(map(_holds_json, _inner(kind)))


def _is_json(kind: Any) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.json"


def _inner(kind: Any) -> list[Any]:
    """The types that a type is made of: a list's items, a struct's fields, a map's pairs."""
    return [kind.field(index).type for index in range(kind.num_fields)]


def _decoded(value: Any, kind: Any) -> Any:
    """A value whose texts of Arrow's JSON are what they say; what is no JSON stays text.

    `datasets` stores columns of several types so, from version 4.7 on.
    """
    if value is None:
        return None
    if _is_json(kind):
        try:
            return parse(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        named = {kind.field(index).name: kind.field(index).type for index in range(kind.num_fields)}
        return {name: _decoded(item, named[name]) for name, item in value.items()}
    if isinstance(value, list):
        (item_kind,) = _inner(kind)
        return [_decoded(item, item_kind) for item in value]
    if isinstance(value, tuple):  # of a map, whose items are pairs
        return tuple(_decoded(item, inner) for item, inner in zip(value, _inner(kind), strict=True))
    return value


def _is_plain(kind: Any) -> bool:
    """Whether a type's values are what JSON knows, and bytes, without conversion."""
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))
    if types.is_map(kind):
        return False
    if types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    simple = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    return _is_sized(kind) or any(test(kind) for test in simple)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    known = value is None or isinstance(value, str | int | float | bytes)
    return value if known else str(value)


def _has_names(feature: Any) -> bool:
    """Whether a column's description has a ClassLabel in it."""
    if isinstance(feature, list):
        return any(map(_has_names, feature))
    if not isinstance(feature, dict):
        return False
    return feature.get("_type") == "ClassLabel" or any(map(_has_names, feature.values()))


def _named(value: Any, feature: Any) -> Any:
    """The value with the numbers of a ClassLabel turned into its names; -1 means no label."""
    if isinstance(feature, list) and feature:
        return _named(value, {"_type": "List", "feature": feature[0]})
    if value is None or not isinstance(feature, dict):
        return value
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        if not isinstance(names, list) or not isinstance(value, int) or value >= len(names):
            return value
        return names[value] if value >= 0 else None
    inner = feature.get("feature")
    if inner is not None and isinstance(value, list):
        return [_named(item, inner) for item in value]
    if isinstance(value, dict):
        # `datasets` writes a Sequence of a dict as a dict of lists.
        within: dict[str, Any] = inner if isinstance(inner, dict) else feature
        lists = feature.get("_type") == "Sequence"
        return {
            name: _named(item, [within.get(name)] if lists else within.get(name))
            for name, item in value.items()
        }
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def write_parquet(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as Parquet. Raises KilotuneError where one column holds several types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    for name in columns:
        try:
            pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise KilotuneError(
                f"the column '{name}' holds values of several types ({_first_line(error)})",
                fix="Write .jsonl instead",
            ) from error
    try:
        table = pa.table({name: pa.array([row.get(name) for row in rows]) for name in columns})
        pq.write_table(table, out)
    except pa.ArrowException as error:
        raise KilotuneError(
            f"Parquet cannot hold these rows ({_first_line(error)})", fix="Write .jsonl instead"
        ) from error
    return out.getvalue()
