import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilotune.data.readers import read_table
from kilotune.data.writers import to_json, write_table
from kilotune.errors import KilotuneError

# Text that survives a CSV: no lone surrogates, and no outer spaces in names.
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=20)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


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


def test_json_lines_count_lines_and_a_json_list_counts_items(tmp_path: Path) -> None:
    lines = read_table(write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b", "label": 1}\n'))
    assert [(row.line, row.values) for row in lines.rows] == [
        (1, {"text": "a"}),
        (3, {"text": "b", "label": 1}),
    ]
    assert lines.columns == ("text", "label")
    items = read_table(write(tmp_path / "a.json", json.dumps([{"text": "a"}, {"text": "b"}])))
    assert [row.line for row in items.rows] == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "empty"),
        ("a.csv", "text,label\n", "no rows"),
        ("a.csv", "text,text\na,b\n", "column names"),
        ("a.csv", "text,label\na,b\nc\nd,e,f\n", "line 3 has 1, line 4 has 3"),
        ("a.csv", b"text,label\nok,x\n\xff\xfe,x\n", "a.csv:3"),
        ("a.jsonl", '{"text": "a"}\nnot json\n[1]\n', "line 2, 3"),
        ("a.json", '{"text": "a"}', "list of objects"),
        ("a.json", '[{"text": "a"},\n oops]', "a.json:2"),
        ("a.docx", "text", "'.docx'"),
    ],
)
def test_bad_files_are_one_clear_error(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(KilotuneError) as caught:
        read_table(write(tmp_path / name, content))
    assert words in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.fix


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(KilotuneError, match="no data files"):
        read_table(tmp_path)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), ending=st.sampled_from(
    [".csv", ".tsv", ".jsonl", ".json"]))  # fmt: skip
def test_what_is_written_is_read_back(
    rows: list[tuple[str, str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"a{ending}"
    values = [{"text": text, "label": label} for text, label in rows]
    write_table(path, ("text", "label"), values)
    assert [row.values for row in read_table(path).rows] == values


def test_json_has_no_nan_and_spells_out_paths() -> None:
    content = {"a": [float("nan"), 1.5, float("inf")], "p": Path("x")}
    assert json.loads(to_json(content)) == {"a": [None, 1.5, None], "p": "x"}


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "mine")
    with pytest.raises(KilotuneError, match="left as it is"):
        write_table(path, ("text",), [{"text": "b"}])
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]
