"""Generated texts that a spreadsheet would run are named, and written as they are."""

from pathlib import Path

import pytest

from kilotune.data.files.formulas import formulas, is_formula


@pytest.mark.parametrize(
    "text",
    ["=1+1", "=HYPERLINK(0)", "+cmd|x", "- one", "-x", "@sum", "\t=1", "\r=1", "＝1", "-5-x"],
)
def test_what_a_spreadsheet_would_run_is_a_formula(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize("text", ["-5", "+3.2", "-1,000.5", "-5 %", "1e-3", "-1e-3", "a=1", ""])
def test_numbers_and_other_texts_are_none(text: str) -> None:
    assert not is_formula(text)


def test_the_rows_are_named_where_cells_have_no_type() -> None:
    generated = {"file:2": "=1+1", "file:3": "fine", "file:4": "-2", "file:5": "@a"}
    for name in ("x.csv", "x.TSV.gz"):
        (finding,) = formulas(Path(name), generated.items())
        assert (finding.code, finding.severity) == ("formula", "note")
        assert finding.rows == ("file:2", "file:5")
    for name in ("x.xlsx", "x.jsonl", "x.parquet"):
        assert formulas(Path(name), generated.items()) == []


def test_one_of_a_rows_texts_is_enough_and_names_it_once() -> None:
    generated = [("data:2", "=1+1"), ("data:2", "good"), ("data:2", "@a"), ("data:3", "fine")]
    (finding,) = formulas(Path("x.csv"), generated)
    assert finding.rows == ("data:2",)
