"""A file's own parts: honoured where their column is named."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.data.column_plan import Reading
from kilotune.errors import KilotuneError
from kilotune.preparation.inspection import check
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import recipe_for
from tests.support.wordy import words, write_rows


def row(n: int) -> dict[str, Any]:
    part = ("train", "Train", "dev", "test")[n % 4]
    return {"text": words(n), "label": "ab"[n // 4 % 2], "split": part}


def prepared(path: Path, **data: Any) -> dict[str, list[str]]:
    return prepare(recipe_for(path, data=data), Silent()).parts.ids()


def test_the_parts_of_a_run_are_the_files_own(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", row, 60)
    parts = prepared(path, split="split")
    assert parts["validation"] == [f"data:{n}" for n in range(3, 61, 4)]
    assert parts["test"] == [f"data:{n}" for n in range(4, 61, 4)]
    assert len(parts["train"]) == 30


def test_a_part_that_the_file_lacks_is_split_off(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "a.jsonl", lambda n: {**row(n), "split": "", "is_test": n % 4 == 3}
    )
    parts = prepared(path, split="is_test")
    assert parts["test"] == [f"data:{n}" for n in range(4, 41, 4)]
    assert len(parts["validation"]) == 6
    assert len(parts["train"]) == 24


def test_check_counts_the_parts_and_compares_them(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", lambda n: {**row(n), "text": words(n // 4)}, 60)
    inspection = check([path], reading=Reading(split="split"))
    assert inspection.examples == {"data": 30, "validation": 15, "test": 15}
    assert {f.code for f in inspection.findings} >= {"leakage"}
    assert "unread-split" not in {f.code for f in inspection.findings}


def test_rows_without_a_part_are_named(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "a.jsonl", lambda n: {**row(n), "split": "tr" if n == 4 else "test"}
    )
    with pytest.raises(KilotuneError, match="'split' names no part in data:5, but 'tr'"):
        prepared(path, split="split")


def test_a_part_is_given_once(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", row)
    other = write_rows(tmp_path / "b.jsonl", lambda n: row(n + 100))
    with pytest.raises(KilotuneError, match="the test part is given as a file, and 'split' names"):
        prepared(path, split="split", test=other)
    with pytest.raises(KilotuneError, match="--split is of one file"):
        check([path, other], reading=Reading(split="split"))
    with pytest.raises(KilotuneError, match="no column 'part'"):
        prepared(path, split="part")
