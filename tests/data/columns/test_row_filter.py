"""Which rows are kept, and what is said where none is."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.data.columns.row_filter import kept_rows
from kilotune.data.files.table import Row, Table
from kilotune.errors import KilotuneError


def table(*values: dict[str, Any]) -> Table:
    columns = tuple(dict.fromkeys(name for row in values for name in row))
    return Table(Path("a"), columns, tuple(Row(n, row) for n, row in enumerate(values, 1)))


ROWS = table(
    {"v": "Accept", "n": 1, "b": True},
    {"v": "reject", "n": 4.5, "b": False},
    {"v": None, "n": "5", "b": False},
    {"v": "draft", "n": None, "b": True},
)


@pytest.mark.parametrize(
    ("keep", "lines"),
    [
        (("v=accept",), [1]),
        (("v=accept", "v=reject"), [1, 2]),
        (("v!=reject", "v!=draft"), [1, 3]),
        (("v=",), [3]),
        (("n>=4.5",), [2, 3]),
        (("n<5", "b=true"), [1]),
        (("n > 1", "n<=5"), [2, 3]),
    ],
)
def test_rows_are_kept_by_every_condition(keep: tuple[str, ...], lines: list[int]) -> None:
    assert [row.line for row in kept_rows(ROWS, keep)] == lines


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("v", "cannot read 'v'"),
        ("n>=many", "'many' in 'n>=many' is no number"),
        ("w=1", "no column 'w' to keep rows by; the columns are v, n, b"),
        ("v=yes", "no row is left of those to keep (v=yes); in 'v' stands , Accept, draft, reject"),
    ],
)
def test_what_cannot_be_kept_by_is_said(keep: str, words: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        kept_rows(ROWS, (keep,))
    assert words in str(caught.value)
