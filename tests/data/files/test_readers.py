import gzip
import io
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilotune.data.files.readers import READERS, Table, read_table
from kilotune.data.files.writers import WRITERS, to_json, write_table
from kilotune.errors import KilotuneError

# Text that every kind of file can hold: Excel knows neither "\r" nor control characters.
CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=20
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def codes(table: Table) -> list[str]:
    return [finding.code for finding in table.findings]


def refused(path: Path) -> KilotuneError:
    with pytest.raises(KilotuneError) as caught:
        read_table(path)
    assert caught.value.fix
    return caught.value


# ---- CSV and TSV


def test_rows_know_the_line_they_start_on(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", 'text,label\n"two\nlines",x\n\nlast,y\n'))
    assert [(row.line, row.values["text"]) for row in table.rows] == [
        (2, "two\nlines"),
        (5, "last"),
    ]
    assert table.columns == ("text", "label")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", b"\xef\xbb\xbftext,label\na,b\n"))
    assert table.columns == ("text", "label")


def test_tab_separated(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.tsv", "text\tlabel\na, b\tc\n"))
    assert table.rows[0].values == {"text": "a, b", "label": "c"}


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_seen_in_the_header_and_said(separator: str, tmp_path: Path) -> None:
    content = f"text{separator}label\na, b{separator}c\n"
    table = read_table(write(tmp_path / "a.csv", content))
    assert table.rows[0].values == {"text": "a, b", "label": "c"}
    assert codes(table) == ["csv-separator"]


def test_the_separator_is_the_one_that_gives_every_row_the_headers_fields(tmp_path: Path) -> None:
    content = "text, in full;label\na, b, c;x\nd;y\n"
    table = read_table(write(tmp_path / "a.csv", content))
    assert table.rows[0].values == {"text, in full": "a, b, c", "label": "x"}
    table = read_table(write(tmp_path / "b.csv", "text,label;2\na;b,x\nc|d,y\n"))
    assert table.columns == ("text", "label;2")
    table = read_table(write(tmp_path / "c.tsv", "text,label\na\tb,x\n"))
    assert table.rows[0].values == {"text": "a\tb", "label": "x"}
    assert codes(table) == ["csv-separator"]
    assert "separated by commas" in table.findings[0].message


def test_tabs_without_quoting_keep_their_quotes_and_rows(tmp_path: Path) -> None:
    content = 'text\tlabel\n"Fine" film\tx\n"half open\ty\nplain\tz\n'
    table = read_table(write(tmp_path / "a.tsv", content))
    assert [(row.line, row.values["text"]) for row in table.rows] == [
        (2, '"Fine" film'), (3, '"half open'), (4, "plain"),
    ]  # fmt: skip
    assert codes(table) == ["tsv-quotes"]


def test_long_fields_and_nul_bytes_are_read(tmp_path: Path) -> None:
    long = "x" * 200_000
    table = read_table(write(tmp_path / "a.csv", f"text,label\n{long},a\nn\0l,b\n"))
    assert [row.values["text"] for row in table.rows] == [long, "n\0l"]


def test_all_wrongly_quoted_rows_are_named(tmp_path: Path) -> None:
    content = 'text,label\n"a" b,x\nfine,y\n"c" d,x\n"never closed,y\nmore,z\n'
    error = refused(write(tmp_path / "a.csv", content))
    assert "2 (text behind a closing quote), 4 (text behind" in error.what
    assert "5 (a quote that is never closed)" in error.what


def test_rows_that_cannot_be_read_are_left_out_and_the_others_read(tmp_path: Path) -> None:
    content = 'text,label\n"a" b,x\nfine,y\n1,2,3\n"two\nlines" z,y\nmore,z\nw\n'
    table = read_table(write(tmp_path / "a.csv", content), partial=True)
    assert [(row.line, row.values["text"]) for row in table.rows] == [
        (3, "fine"), (7, "more"),
    ]  # fmt: skip
    assert [(bad.line, bad.why) for bad in table.unread] == [
        (2, "text behind a closing quote"), (4, "3 fields, not 2"),
        (5, "text behind a closing quote"), (8, "1 field, not 2"),
    ]  # fmt: skip
    (finding,) = table.faults("data")
    assert finding.rows == ("data:2", "data:4", "data:5", "data:8")
    assert table.unread[2].text == '"two\nlines" z,y'


def test_a_quote_that_is_never_closed_takes_its_own_line_alone(tmp_path: Path) -> None:
    content = 'text,label\na,x\n"open,y\nb,z\nc,x\n'
    table = read_table(write(tmp_path / "a.csv", content), partial=True)
    assert [(row.line, row.values["text"]) for row in table.rows] == [(2, "a"), (4, "b"), (5, "c")]
    assert [(bad.line, bad.why, bad.text) for bad in table.unread] == [
        (3, "a quote that is never closed", '"open,y')
    ]


def test_broken_lines_and_items_are_left_out_and_the_others_read(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", '{"text": "a"}\n{oops\n[1]\n{"text": "b"}\n')
    items = write(tmp_path / "b.json", '[{"text": "a"}, 3, {"text": "b"}, null]')
    read = [read_table(path, partial=True) for path in (lines, items)]
    assert [[row.line for row in table.rows] for table in read] == [[1, 4], [1, 3]]
    assert [[(bad.line, bad.why) for bad in table.unread] for table in read] == [
        [(2, "not valid JSON"), (3, "not an object")],
        [(2, "not an object"), (4, "not an object")],
    ]
    folder = read_table(tmp_path, partial=True)
    assert folder.faults("data")[0].rows == (
        "data:a.jsonl:2", "data:a.jsonl:3", "data:b.json:2", "data:b.json:4",
    )  # fmt: skip


def test_a_file_without_one_good_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="rows that cannot be read: 1"):
        read_table(write(tmp_path / "a.jsonl", "oops\n[1]\n"), partial=True)


# ---- JSON


def test_json_lines_count_lines_and_a_json_list_counts_items(tmp_path: Path) -> None:
    lines = read_table(write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b", "label": 1}\n'))
    assert [(row.line, row.values) for row in lines.rows] == [
        (1, {"text": "a"}),
        (3, {"text": "b", "label": 1}),
    ]
    assert lines.columns == ("text", "label")
    items = read_table(write(tmp_path / "a.json", json.dumps([{"text": "a"}, {"text": "b"}])))
    assert [row.line for row in items.rows] == [1, 2]


def test_a_list_inside_an_object_is_read_and_said(tmp_path: Path) -> None:
    content = json.dumps({"version": 1, "data": [{"text": "a"}, {"text": "b"}], "other": []})
    table = read_table(write(tmp_path / "a.json", content))
    assert [row.values for row in table.rows] == [{"text": "a"}, {"text": "b"}]
    assert codes(table) == ["json-inner-list"]
    assert "'data'" in table.findings[0].message


def test_one_conversation_alone_is_one_row(tmp_path: Path) -> None:
    content = {"messages": [{"role": "user", "content": "a"}]}
    table = read_table(write(tmp_path / "a.json", json.dumps(content)))
    assert [row.values for row in table.rows] == [content]


def test_json_lines_under_a_json_name_are_read_and_said(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n'))
    assert [row.line for row in table.rows] == [1, 2]
    assert codes(table) == ["json-lines"]


def test_one_json_document_under_a_name_of_lines_is_read_and_said(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    lines = '[\n{"text": "a"},\n{"text": "b"}\n]\n'  # the last item alone is a line of JSON Lines
    for text in (json.dumps(rows), json.dumps(rows, indent=1), lines):
        table = read_table(write(tmp_path / "a.jsonl", text))
        assert [(row.line, row.values["text"]) for row in table.rows] == [(1, "a"), (2, "b")]
        assert codes(table) == ["json-document"]
    table = read_table(write(tmp_path / "a.jsonl", json.dumps({"data": rows}, indent=1)))
    assert codes(table) == ["json-document", "json-inner-list"]


def test_bad_lines_are_named_together_with_their_reasons(tmp_path: Path) -> None:
    lines = [
        '{"text": "fine \\ud83d\\ude00"}', "{oops", '{"a": 1, "a": 2}', '{"t": "\\ud800"}',
        '{"d": ' + "[" * 100_000, '{"n": ' + "1" * 5000 + "}", "[1]",
    ]  # fmt: skip
    error = refused(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert error.what == (
        "rows that cannot be read: 2 (not valid JSON), 3 (the key 'a' twice), 4 (half of a "
        "surrogate pair), 5 (nested too deeply), 6 (a number of too many digits) and 1 more"
    )


# ---- every kind


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "empty"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", "text,label\na,b\nc\nd,e,f\n", "3 (1 field, not 2), 4 (3 fields, not 2)"),
        ("a.csv", b"text,label\nok,x\n\xff\xfe,x\n", "a.csv:3"),
        ("a.jsonl", '{"text": "a"}\nnot json\n[1]\n', "2 (not valid JSON), 3 (not an object)"),
        ("a.json", '{"text": "a"}', "list of objects"),
        ("a.json", '{"text": {"0": "a"}, "label": {"0": "b"}}', "orient='records'"),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', "list of objects"),
        ("a.json", '[{"text": "a"},\n oops]', "a.json:2"),
        ("a.json", '[{"text": "a"}, 3, {}, null]', "2 (not an object), 4"),
        ("a.json", '[{"text": "a", "text": "b"}]', "the key 'text' twice"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", '["\\udc00"]', "surrogate"),
        ("a.docx", "text", "'.docx'"),
        ("a.xls", "text", "Save it as .xlsx"),
        ("a.xlsx", "text", "not a complete Excel workbook"),
        ("a.xlsx", bytes.fromhex("d0cf11e0a1b11ae1") + b"x" * 600, "password-protected"),
        ("a.parquet", b"PAR1 no PAR1", "not a readable Parquet file"),
        ("a.csv.gz", "text,label\na,b\n", "not a complete gzip file"),
        ("a.gz", gzip.compress(b"text", mtime=0), "ending in ''"),
    ],
)
def test_bad_files_are_one_clear_error(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    error = refused(write(tmp_path / name, content))
    assert words in str(error)
    assert str(tmp_path / name) in str(error)


def test_missing_files_are_said(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.csv").what == "no such file"
    assert refused(tmp_path / ("x" * 5000 + ".csv")).what == "no such file"


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    ending=st.sampled_from([*WRITERS, ".csv.gz", ".jsonl.gz", ".parquet.gz", ".xlsx.gz"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(
    rows: list[tuple[str, str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"a{ending}"
    # A row that holds nothing is no row in Excel.
    values = [{"text": text, "label": label, "n": "x"} for text, label in rows]
    write_table(path, ("text", "label", "n"), values)
    read = [row.values for row in read_table(path).rows]
    assert [{k: v or "" for k, v in row.items()} for row in read] == values


def test_lone_returns_survive_csv(tmp_path: Path) -> None:
    values = [{"text": "a\rb", "label": "c\r\nd"}]
    for kind in ("csv", "tsv", "jsonl", "parquet"):
        path = tmp_path / f"a.{kind}"
        write_table(path, ("text", "label"), values)
        assert read_table(path).rows[0].values == values[0]


NESTED = [{"m": [{"role": "user", "n": None}], "b": b"\x00\xff"}, {"m": [], "b": None}]


def test_nested_values_become_json_in_tables_and_bytes_base64(tmp_path: Path) -> None:
    for kind, first in (
        ("csv", {"m": '[{"role": "user", "n": null}]', "b": "AP8="}),
        ("xlsx", {"m": '[{"role": "user", "n": null}]', "b": "AP8="}),
        ("jsonl", {"m": [{"role": "user", "n": None}], "b": "AP8="}),
        ("parquet", NESTED[0]),
    ):
        path = tmp_path / f"a.{kind}"
        write_table(path, ("m", "b"), NESTED)
        assert read_table(path).rows[0].values == first


def test_the_same_rows_give_the_same_compressed_bytes(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv.gz"):
        write_table(tmp_path / name, ("text",), [{"text": "x"}])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_json_has_no_nan_and_spells_out_paths() -> None:
    content = {"a": [float("nan"), 1.5, float("inf")], "p": Path("x")}
    assert json.loads(to_json(content)) == {"a": [None, 1.5, None], "p": "x"}


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "mine")
    with pytest.raises(KilotuneError, match="left as it is"):
        write_table(path, ("text",), [{"text": "b"}])
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_several_types_are_refused_by_parquet_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="column 'a' holds values of several types") as caught:
        write_table(tmp_path / "a.parquet", ("a",), [{"a": "x"}, {"a": [1]}])
    assert caught.value.fix == "Write .jsonl instead"


@pytest.mark.parametrize("text", ["x" * 40_000, "a\x07b", "a\rb"])
def test_what_excel_cannot_hold_is_refused_with_its_row(text: str, tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="in row 3"):
        write_table(tmp_path / "a.xlsx", ("a",), [{"a": "fine"}, {"a": text}])
    assert list(tmp_path.iterdir()) == []


def test_texts_that_look_like_formulas_stay_texts(tmp_path: Path) -> None:
    values = [{"text": "=1+1", "label": "#N/A"}, {"text": "007", "label": "TRUE"}]
    write_table(tmp_path / "a.xlsx", ("text", "label"), values)
    assert [row.values for row in read_table(tmp_path / "a.xlsx").rows] == values


# ---- Excel


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_excel_rows_have_the_sheets_numbers_and_plain_values(tmp_path: Path) -> None:
    from datetime import date, datetime

    rows = [[], ["text", "label", None], ["a", 1], [], ["b", True], [datetime(2026, 1, 2), 2.5],
            [date(2026, 1, 2), None]]  # fmt: skip
    table = read_table(workbook(tmp_path / "a.xlsx", data=rows))
    assert [(row.line, row.values) for row in table.rows] == [
        (3, {"text": "a", "label": 1}),
        (5, {"text": "b", "label": True}),
        (6, {"text": "2026-01-02", "label": 2.5}),
        (7, {"text": "2026-01-02", "label": None}),
    ]


def test_the_first_sheet_with_rows_is_read_and_others_are_said(tmp_path: Path) -> None:
    rows = [["text", "label"], ["a", "b"]]
    path = workbook(tmp_path / "a.xlsx", cover=[["Title"]], first=rows, second=rows)
    table = read_table(path)
    assert [row.values for row in table.rows] == [{"text": "a", "label": "b"}]
    assert codes(table) == ["several-sheets"]
    assert "'first' was read; there are rows in 'second' too" in table.findings[0].message


def test_columns_without_a_name_are_left_out_and_said(tmp_path: Path) -> None:
    """As pandas writes the numbers of its rows, and as a note beside a table is."""
    (tmp_path / "a.csv").write_text(",text,label\n0,one,a\n1,two,b\n")
    workbook(
        tmp_path / "a.xlsx", data=[["text", "label"], ["one", "a", None, "look"], ["two", "b"]]
    )
    for name, place in (("a.csv", "1"), ("a.xlsx", "4")):
        table = read_table(tmp_path / name)
        assert [row.values for row in table.rows] == [
            {"text": "one", "label": "a"},
            {"text": "two", "label": "b"},
        ]
        assert [(f.code, f.severity) for f in table.findings] == [("unnamed-column", "note")]
        assert table.findings[0].message.endswith(f": {place}")


def test_one_bad_file_of_a_folder_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\none,a\n")
    (tmp_path / "b.csv").write_text("")
    (finding,) = read_table(tmp_path, partial=True).findings
    assert (finding.code, finding.severity) == ("unreadable-file", "error")
    assert "b.csv: the file is empty" in finding.message
    with pytest.raises(KilotuneError, match="the file is empty"):
        read_table(tmp_path)


# ---- datasets


@pytest.fixture(scope="module")
def hub_rows() -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["x", "y"])),
            "image": datasets.Image(),
        }
    )
    rows = {
        "text": ["a", "b", "c"],
        "label": [1, 0, -1],
        "tags": [[0, 1], [], [1]],
        "image": [IMAGE, None, IMAGE],
    }
    return datasets.Dataset.from_dict(rows, features=features)


IMAGE = {"bytes": b"\x89PNG", "path": "a.png"}
EXPECTED = [
    {"text": "a", "label": "good", "tags": ["x", "y"], "image": IMAGE},
    {"text": "b", "label": "bad", "tags": [], "image": None},
    {"text": "c", "label": None, "tags": ["y"], "image": IMAGE},
]


def test_saved_datasets_are_read_with_the_names_of_their_labels(
    hub_rows: Any, tmp_path: Path
) -> None:
    hub_rows.save_to_disk(tmp_path / "one", num_shards=2)
    table = read_table(tmp_path / "one")
    assert [row.values for row in table.rows] == EXPECTED
    assert [row.line for row in table.rows] == [1, 2, 3]
    assert table.columns == ("text", "label", "tags", "image")


def test_selected_and_shuffled_datasets_keep_their_order(hub_rows: Any, tmp_path: Path) -> None:
    hub_rows.select([2, 0]).save_to_disk(tmp_path / "one")
    assert [row.values["text"] for row in read_table(tmp_path / "one").rows] == ["c", "a"]


def test_of_several_splits_train_is_read_and_said(hub_rows: Any, tmp_path: Path) -> None:
    from datasets import DatasetDict

    both = DatasetDict(test=hub_rows.select([0]), train=hub_rows.select([1, 2]))
    both.save_to_disk(tmp_path / "both")
    table = read_table(tmp_path / "both")
    assert [row.values["text"] for row in table.rows] == ["b", "c"]
    assert codes(table) == ["several-splits"]
    assert [row.values["text"] for row in read_table(tmp_path / "both" / "test").rows] == ["a"]
    DatasetDict(a=hub_rows, b=hub_rows).save_to_disk(tmp_path / "none")
    assert "none called train: a, b" in refused(tmp_path / "none").what


def test_parquet_of_datasets_has_the_names_too(hub_rows: Any, tmp_path: Path) -> None:
    hub_rows.to_parquet(tmp_path / "a.parquet")
    assert [row.values for row in read_table(tmp_path / "a.parquet").rows] == EXPECTED


def test_incomplete_saved_datasets_are_one_error(hub_rows: Any, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    hub_rows.save_to_disk(folder)
    (arrow,) = folder.glob("*.arrow")
    whole = arrow.read_bytes()
    arrow.write_bytes(whole[: len(whole) // 2])
    assert "not a readable Arrow file" in refused(folder).what
    arrow.unlink()
    assert "not a readable Arrow file" in refused(folder).what
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    assert refused(folder).what == "not a folder that save_to_disk wrote"
    (folder / "state.json").write_text("{")
    assert refused(folder).what == "missing or not valid JSON"


def test_parquet_values_become_plain(tmp_path: Path) -> None:
    from datetime import datetime
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "when": pa.array([datetime(2026, 1, 2, 3)], pa.timestamp("ns")),
        "price": pa.array([Decimal("1.50")]),
        "pairs": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "days": pa.array([[datetime(2026, 1, 2).date()]]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows[0].values == {
        "when": "2026-01-02T03:00:00", "price": "1.50", "pairs": [["a", 1]], "days": ["2026-01-02"],
    }  # fmt: skip


# ---- folders


def test_a_folder_is_read_in_order_and_rows_know_their_file(hub_rows: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    write(tmp_path / "b.csv", "text,label\nb,1\n")
    write(tmp_path / "sub" / "c.jsonl.gz", gzip.compress(b'{"text": "c", "kind": 2}\n', mtime=0))
    write(tmp_path / "a.tsv", "text\tlabel\na\t1\n")
    write(tmp_path / ".hidden.csv", "broken")
    write(tmp_path / ".cache" / "x.csv", "broken")
    write(tmp_path / "~$b.xlsx", "lock")
    write(tmp_path / "README.md", "about")
    write(tmp_path / "sub" / "1.png", "x")
    hub_rows.save_to_disk(tmp_path / "sub" / "hub")
    table = read_table(tmp_path)
    assert [(row.id("data"), row.values["text"]) for row in table.rows] == [
        ("data:a.tsv:2", "a"), ("data:b.csv:2", "b"), ("data:sub/c.jsonl.gz:1", "c"),
        ("data:sub/hub:1", "a"), ("data:sub/hub:2", "b"), ("data:sub/hub:3", "c"),
    ]  # fmt: skip
    assert table.columns == ("text", "label", "kind", "tags", "image")
    (finding,) = table.findings
    assert finding.code == "files-not-read"
    assert "README.md, sub/1.png" in finding.message


def test_faulty_files_of_a_folder_are_named_together(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "text,label\na\n")
    write(tmp_path / "b.jsonl", "oops\n")
    write(tmp_path / "c.csv", "text,label\na,b\n")
    write(tmp_path / "d.xls", "old")
    what = refused(tmp_path).what
    assert "a.csv: rows that cannot be read: 2 (1 field, not 2)" in what
    assert "b.jsonl: rows that cannot be read: 1 (not valid JSON)" in what
    assert "d.xls: cannot read files ending in '.xls'" in what


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "about")
    assert refused(tmp_path).what == "no data files in the folder"


# ---- nothing but KilotuneError


def seed_files() -> dict[str, bytes]:
    rows = [{"text": f"text {i} é 好", "label": "ab"[i % 2]} for i in range(20)]
    made = {}
    for kind, content in WRITERS.items():
        made[kind] = content(("text", "label"), rows)
    made[".ndjson"] = made[".jsonl"]
    return made


@given(data=st.data(), kind=st.sampled_from(sorted(READERS)))
@settings(max_examples=300, deadline=None)
def test_mutated_files_are_read_or_refused(data: st.DataObject, kind: str) -> None:
    raw = bytearray(SEEDS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw)))
        until = data.draw(st.integers(at, min(len(raw), at + 30)))
        raw[at:until] = data.draw(st.binary(max_size=12))
    with suppress(KilotuneError):
        rows = READERS[kind](bytes(raw), "a").rows
        assert all(isinstance(row.values, dict) for row in rows)


SEEDS = seed_files()


@pytest.mark.parametrize("kind", [".json", ".parquet", ".xlsx", ".jsonl"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    whole = SEEDS[kind].rstrip()
    with pytest.raises(KilotuneError):
        READERS[kind](whole[: int(len(whole) * share)], "a").whole("a")


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO(gzip.compress(b"text,label\na,b\n" * 50, mtime=0)).getvalue()
    assert "not a complete gzip" in refused(write(tmp_path / "a.csv.gz", packed[:-9])).what


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "films.csv"
    os.mkfifo(pipe)
    with pytest.raises(KilotuneError, match="not a regular file"):
        read_table(pipe)


def test_a_weight_behind_a_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "q", "label": "a"}')
    with pytest.raises(KilotuneError, match=r"files have no weights.*--column weight=NAME"):
        read_table(tmp_path / "a.jsonl:2")
    with pytest.raises(KilotuneError, match="no such file"):
        read_table(tmp_path / "b.jsonl:2")
