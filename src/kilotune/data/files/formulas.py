"""Generated texts that a spreadsheet program would run as formulas."""

import re
from collections.abc import Iterable
from pathlib import Path

from kilotune.data.files.table import ending
from kilotune.data.finding import Finding, about_rows

# What formulas begin with, as OWASP lists it under CSV injection; a number is none.
FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?[\d.,]+(?:[eE][+-]?\d+)?\s*%?")
# Workbooks say of each cell that it is a text, and other kinds of files have no formulas.
WITHOUT_TYPES = {".csv", ".tsv"}


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would take a cell of that text for a formula."""
    return bool(FORMULA.match(text)) and not NUMBER.fullmatch(text)


def formulas(out: Path, generated: Iterable[tuple[str, str]]) -> list[Finding]:
    """A note on the rows whose text, `generated` for the file `out`, is a formula there.

    The texts are written as they are all the same: a mark before them would be part of the answer
    to every program that reads the file, and in training data would be learnt.
    """
    if ending(out) not in WITHOUT_TYPES:
        return []
    rows = list(dict.fromkeys(row for row, text in generated if is_formula(text)))
    return about_rows("formula", rows)
