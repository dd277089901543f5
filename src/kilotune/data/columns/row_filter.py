"""Which rows of a file are read: those whose columns say what a recipe keeps."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kilotune.data.columns.joined import text_in
from kilotune.data.files.table import Row, Table
from kilotune.errors import KilotuneError, some

# Of numbers these are compared; a text is equal or not, without case.
COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"(.+?)\s*(>=|<=|!=|=|>|<)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RowCondition:
    """What a cell must be: `answer=accept`, `rating>=4`, `status!=discarded`."""

    column: str
    sign: str
    value: str

    def holds(self, cell: Any) -> bool:
        """Whether a cell is as it must be."""
        said = text_in(cell).strip().casefold()
        if self.sign in {"=", "!="}:
            return (said == self.value.casefold()) == (self.sign == "=")
        try:
            return COMPARED[self.sign](float(said), float(self.value))
        except ValueError:
            return False


def row_condition(written: str) -> RowCondition:
    """A condition as it is written. Raises KilotuneError for what is none."""
    match = CONDITION.fullmatch(written.strip())
    if not match:
        raise KilotuneError(
            f"cannot read '{written}' as which rows are kept",
            fix="Write it as --keep answer=accept, --keep 'rating>=4' or --keep status!=discarded",
        )
    found = RowCondition(*match.groups())
    try:
        if found.sign in COMPARED:
            float(found.value)
    except ValueError:
        raise KilotuneError(
            f"'{found.value}' in '{written}' is no number", fix="Compare other values with = or !="
        ) from None
    return found


def kept_rows(table: Table, keep: Sequence[str]) -> tuple[Row, ...]:
    """The rows that are kept: of several conditions on one column with `=` any, else all must hold.

    Raises KilotuneError for a column that is not there, and where no row is left.
    """
    asked: dict[tuple[str, bool], list[RowCondition]] = {}
    for each in map(row_condition, keep):
        if each.column not in table.columns:
            raise KilotuneError(
                f"no column '{each.column}' to keep rows by; "
                f"the columns are {some(list(table.columns))}",
                where=str(table.path),
                fix="Name one of those",
            )
        asked.setdefault((each.column, each.sign == "="), []).append(each)
    rows = tuple(
        row
        for row in table.rows
        if all(
            (any if equal else all)(one.holds(row.values.get(column)) for one in conditions)
            for (column, equal), conditions in asked.items()
        )
    )
    if not rows:
        column = next(iter(asked))[0]
        values = sorted({text_in(row.values.get(column)) for row in table.rows})
        raise KilotuneError(
            f"no row is left of those to keep ({', '.join(keep)}); in '{column}' stands "
            f"{some(values)}",
            where=str(table.path),
            fix="Name a value that stands there",
        )
    return rows
