"""What unpacks to more than memory holds is refused in one line, before it is all there."""

import gzip
import io
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from openpyxl import Workbook

from kilotune.data.files import bounds
from kilotune.data.files.readers import READERS, read_table
from kilotune.errors import KilotuneError

SIZE = 3_000_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LARGEST", SIZE)


def refused(path: Path) -> str:
    with pytest.raises(KilotuneError) as caught:
        read_table(path)
    assert caught.value.where == str(path)
    assert "fewer examples" in caught.value.fix
    return caught.value.what


def test_gzip_is_counted_while_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(100):
            file.write(b"a" * 1_000_000)
    tracemalloc.start()
    what = refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    assert what == f"{size} on disk, more than 3.0 MB in memory: too large to read here"
    assert peak < 4 * SIZE


def test_a_file_at_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    head = "text,label\n"
    separators = 2 * bounds.FOLLOWING[b"\n"] + 2 * bounds.FOLLOWING[b","]
    size = (SIZE - separators) // bounds.COPIES - len(head) - 3
    path.write_text(f"{head}{'a' * size},b\n")
    assert len(read_table(path).rows[0].values["text"]) == size
    path.write_text(f"{head}{'a' * (size + 1)},b\n")
    assert "more than 3.0 MB in memory" in refused(path)


ROWS = {
    "short.csv": "ab,cd\n",
    "single.csv": "a\n",
    "long.csv": "a" * 3_000 + ",b\n",
    "emoji.csv": "a" * 100 + "\U0001f600,b\n",
    "wide.tsv": "\t".join(["ab"] * 500) + "\n",
    "short.jsonl": '{"t":"ab","l":"cd"}\n',
    "empty.jsonl": "{}\n",
    "long.jsonl": '{"t":"' + "a" * 300 + '\U0001f600"}\n',
    "nested.jsonl": '{"t":[' + ",".join(['{"a":[]}'] * 50) + "]}\n",
    "bad.jsonl": "not an object\n",
}


@pytest.mark.parametrize("name", ROWS)
def test_reading_text_takes_no_more_memory_than_is_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    names = {"single.csv": "t", "wide.tsv": "\t".join(f"c{n}" for n in range(500))}
    head = {".jsonl": '{"t": "x"}', ".csv": "t,l"}.get(path.suffix, "")
    line = ROWS[name]
    lines = line * (100_000 // len(line))
    path.write_text(f"{names.get(name, head)}\n{lines}", encoding="utf-8")
    monkeypatch.setattr(bounds, "LARGEST", 1 << 40)
    read_table(path, partial=True)  # what is imported is no part of it
    taken = []
    monkeypatch.setattr(bounds.Room, "take", lambda room, size: taken.append(size))
    tracemalloc.start()
    read_table(path, partial=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < max(taken)
    assert max(taken) < 12 * peak  # nor far less: a file that could be read is not refused


def test_parquet_that_says_one_text_many_times_is_counted_in_rows(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"text": ["film"] * 200_000, "label": ["good"] * 200_000}), path)
    assert path.stat().st_size < 10_000
    assert "too large to read here" in refused(path)


def categories(values: list[str] | list[int], rows: int) -> pa.Array:
    numbers = pa.array([row % len(values) for row in range(rows)], pa.int32())
    return pa.DictionaryArray.from_arrays(numbers, pa.array(values))


@pytest.mark.parametrize("nested", [False, True])
def test_texts_that_rows_share_count_once_a_row(nested: bool, tmp_path: Path) -> None:
    def written(name: str, texts: list[str]) -> Path:
        column = categories(texts, 4_000)
        if nested:
            column = pa.StructArray.from_arrays(
                [pa.ListArray.from_arrays(pa.array(range(4_001), pa.int32()), column)], ["said"]
            )
        pq.write_table(pa.table({"text": column}), tmp_path / name)
        return tmp_path / name

    different = [f"{number:0100d}" for number in range(4_000)]
    texts = [row.values["text"] for row in read_table(written("many.parquet", different)).rows]
    assert texts == ([{"said": [text]} for text in different] if nested else different)
    few = written("few.parquet", ["a" * 2_000, "b" * 2_000])
    assert few.stat().st_size < 20_000
    assert "3.0 MB" in refused(few)


def test_numbers_that_rows_share_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": categories([7, 8], 3)}), path)
    assert [row.values["n"] for row in read_table(path).rows] == [7, 8, 7]


def test_a_folder_of_datasets_is_counted_too(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    Dataset.from_dict({"text": ["film"] * 50_000, "label": ["good"] * 50_000}).save_to_disk(folder)
    with pytest.raises(KilotuneError, match="too large to read") as caught:
        read_table(folder)
    assert caught.value.where.endswith(".arrow")


def workbook(path: Path, cells: dict[str, str]) -> Path:
    book = Workbook()
    for place, value in cells.items():
        book.active[place] = value
    book.save(path)
    return path


def test_a_workbook_is_refused_by_what_its_parts_unpack_to(tmp_path: Path) -> None:
    rows = {f"A{number}": "text" if number == 1 else "a" * 32_000 for number in range(1, 200)}
    path = workbook(tmp_path / "bomb.xlsx", {**rows, "B1": "label", "B2": "x"})
    assert path.stat().st_size < SIZE / 10
    assert "too large to read here" in refused(path)


def test_a_workbook_of_cells_far_out_is_counted_in_cells(tmp_path: Path) -> None:
    path = workbook(tmp_path / "wide.xlsx", {f"XFD{number}": "x" for number in range(1, 40)})
    assert path.stat().st_size < SIZE / 10
    assert "too large to read here" in refused(path)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".xlsx", ".parquet"])
def test_too_little_memory_is_said_of_the_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"x{kind}"
    if kind == ".xlsx":
        workbook(path, {"A1": "text", "B1": "label", "A2": "x", "B2": "y"})
    elif kind == ".parquet":
        pq.write_table(pa.table({"text": ["x"], "label": ["y"]}), path)
    else:
        path.write_text("text,label\nx,y\n" if kind == ".csv" else '{"text": "x", "label": "y"}\n')
    assert len(read_table(path).rows) == 1

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    within = {
        ".csv": "kilotune.data.files.delimited.decode",
        ".jsonl": "kilotune.data.files.json_rows.parse",
        ".xlsx": "openpyxl.load_workbook",
        ".parquet": "kilotune.data.files.arrow._features_in",
    }
    monkeypatch.setattr(within[kind], full)
    assert kind in READERS
    assert "not enough memory to read it" in refused(path)


def test_the_limit_is_a_share_of_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "free_memory", lambda: 1_000_000)
    assert bounds.largest() == 500_000
    with pytest.raises(bounds.TooLargeError):
        bounds.read_bounded(io.BytesIO(b"x" * 500_001))
    assert len(bounds.read_bounded(io.BytesIO(b"x" * 500_000))) == 500_000
