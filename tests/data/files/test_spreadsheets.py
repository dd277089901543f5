"""Sheets as people keep them: titles, merged cells, formulas, and Excel's line on the separator."""

from pathlib import Path
from typing import Any

import openpyxl
import pytest

from kilotune.data.files.readers import Table, read_table
from kilotune.data.finding import Finding
from kilotune.data.normalise import load_dataset
from tests.support.wordy import words


def csv_table(tmp_path: Path, content: str, name: str = "a.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(content.encode())
    return read_table(path, partial=True)


def sheet(path: Path, *rows: tuple[Any, ...], merged: tuple[str, ...] = ()) -> Table:
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    for row in rows:
        page.append(row)
    for cells in merged:
        page.merge_cells(cells)
    book.save(path)
    return read_table(path)


def said(table: Table) -> dict[str, Finding]:
    return {finding.code: finding for finding in table.findings}


@pytest.mark.parametrize("head", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
def test_excels_line_says_the_separator(head: str, tmp_path: Path) -> None:
    table = csv_table(tmp_path, head + "text;label\na, b;x\nc;y\n")
    assert table.columns == ("text", "label")
    assert [(row.line, row.values["text"]) for row in table.rows] == [(3, "a, b"), (4, "c")]
    assert table.findings == ()


@pytest.mark.parametrize(
    ("head", "titles"),
    [
        ("Survey export 2026\n", ["Survey export 2026"]),
        ("My survey,\n\n", ["My survey"]),
        ('"Survey export"\nMade on Monday\n', ["Survey export", "Made on Monday"]),
    ],
)
def test_lines_above_the_names_are_left_out_and_said(
    head: str, titles: list[str], tmp_path: Path
) -> None:
    table = csv_table(tmp_path, head + 'text,label\none two,x\n"three\nfour",y\n')
    assert table.columns == ("text", "label")
    assert [row.line for row in table.rows] == [head.count("\n") + 2, head.count("\n") + 3]
    assert said(table)["title-lines"].values["titles"] == titles


@pytest.mark.parametrize(
    "content",
    [
        ",text\n0,good film\n1,bad film\n",
        "text\na\nb\n",
        "text,\nhello there,x\nbye now,y\n",
        "text;label\na, b;x\nc, d;y\n",
    ],
)
def test_names_are_no_title(content: str, tmp_path: Path) -> None:
    table = csv_table(tmp_path, content)
    assert "text" in table.columns
    assert "title-lines" not in said(table)


def test_a_title_in_a_workbook_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [(words(n), "xy"[n % 2]) for n in range(4)]
    table = sheet(
        tmp_path / "a.xlsx", ("Tickets",), (), ("text", "label"), *rows, merged=("A1:B1",)
    )
    assert table.columns == ("text", "label")
    assert [row.line for row in table.rows] == [4, 5, 6, 7]
    assert said(table)["title-lines"].values["titles"] == ["Tickets"]


def test_the_only_name_of_a_sheet_is_no_title(tmp_path: Path) -> None:
    table = sheet(tmp_path / "a.xlsx", ("text",), ("a b", "x"), ("c d", "y"), ("e f", "x"))
    assert table.columns == ("text",)
    assert len(table.rows) == 3


def test_rows_under_a_merged_cell_have_its_value(tmp_path: Path) -> None:
    rows = [("x" if n % 3 == 0 else None, words(n)) for n in range(6)]
    table = sheet(tmp_path / "a.xlsx", ("label", "text"), *rows, merged=("A2:A4", "A5:A7"))
    assert [row.values["label"] for row in table.rows] == ["x"] * 6
    assert [row.values["text"] for row in table.rows] == [words(n) for n in range(6)]
    assert said(table)["merged-cells"].values["columns"] == ["label"]
    assert said(table)["merged-cells"].severity == "warning"


def test_cells_merged_across_a_row_are_one(tmp_path: Path) -> None:
    table = sheet(tmp_path / "a.xlsx", ("a", "b"), ("x", None), ("y", "z"), merged=("A2:B2",))
    assert [row.values for row in table.rows] == [{"a": "x", "b": None}, {"a": "y", "b": "z"}]
    assert table.findings == ()


def test_formulas_that_were_never_worked_out_are_named(tmp_path: Path) -> None:
    rows = [(words(n), f'=IF(A{n + 2}="","x","y")') for n in range(12)]
    sheet(tmp_path / "a.xlsx", ("text", "label"), *rows)
    data = load_dataset(tmp_path / "a.xlsx")
    (finding,) = [f for f in data.findings if f.code == "formula-unstored"]
    assert (finding.values["columns"], finding.values["cells"]) == (["label"], 12)
    assert "in label (12 cells)" in finding.message
