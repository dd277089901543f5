"""Columns that `datasets` stores as Arrow's JSON: what they say is read, at any depth."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kilotune.data.files.readers import read_table
from kilotune.data.normalise import load_dataset
from tests.support.wordy import words

JSON = pa.json_(pa.string())


def column(values: list[Any], kind: pa.DataType) -> pa.Array:
    return pa.array(values).cast(kind)


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def test_json_in_a_map_is_read(tmp_path: Path) -> None:
    items = pa.ExtensionArray.from_storage(JSON, pa.array([text(1.5), text([2])]))
    made = pa.MapArray.from_arrays([0, 2], pa.array(["k", "l"]), items)
    pq.write_table(pa.table({"c": made}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows[0].values["c"] == [["k", 1.5], ["l", [2]]]


@pytest.mark.parametrize(
    ("kind", "stored", "read"),
    [
        (JSON, [text("yes"), text(1), None], ["yes", 1, None]),
        (JSON, [text({"a": [1, "二"]}), text([]), text(None)], [{"a": [1, "二"]}, [], None]),
        (pa.list_(JSON), [[text("a"), text(2)], [], None], [["a", 2], [], None]),
        (pa.large_list(JSON), [[text("a")]], [["a"]]),
        (
            pa.list_(pa.struct([("role", pa.string()), ("content", JSON)])),
            [[{"role": "user", "content": text([{"type": "text", "text": "hi"}])}]],
            [[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]],
        ),
        (
            pa.struct([("x", pa.struct([("y", JSON)]))]),
            [{"x": {"y": text(True)}}],
            [{"x": {"y": True}}],
        ),
        (pa.list_(JSON, 2), [[text("a"), text(None)]], [["a", None]]),
    ],
)
def test_json_is_read_at_any_depth(
    kind: pa.DataType, stored: list[Any], read: list[Any], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"c": column(stored, kind)}), tmp_path / "a.parquet")
    assert [row.values["c"] for row in read_table(tmp_path / "a.parquet").rows] == read


def test_what_is_no_json_stays_text(tmp_path: Path) -> None:
    storage = pa.array(["{half", '{"a": 1, "a": 2}'], pa.string())
    pq.write_table(
        pa.table({"c": pa.ExtensionArray.from_storage(JSON, storage)}), tmp_path / "a.parquet"
    )
    rows = read_table(tmp_path / "a.parquet").rows
    assert [row.values["c"] for row in rows] == ["{half", '{"a": 1, "a": 2}']


def test_labels_of_several_types_are_what_they_were(tmp_path: Path) -> None:
    labels = [text("yes" if n % 2 else 1) for n in range(20)]
    made = pa.table({"text": [words(n) for n in range(20)], "label": column(labels, JSON)})
    pq.write_table(made, tmp_path / "a.parquet")
    data = load_dataset(tmp_path / "a.parquet")
    assert sorted({e.label or "" for e in data.examples}) == ["1", "yes"]
    assert "mixed-labels" in {finding.code for finding in data.findings}
