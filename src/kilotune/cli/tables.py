"""Tables on the terminal, all of one look."""

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from kilotune.cli.terminal import out

# Columns of what is not a terminal: a pipe has no width, there a row is a line, however long.
WIDE = 240


def new_table(
    *left: str, right: Iterable[str] = (), title: str | None = None, no_wrap: bool = False
) -> Table:
    """An empty table with columns of words, `left`, and behind them columns of figures, `right`."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=no_wrap)
    for name in right:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def print_wide(table: Table) -> None:
    """Print a table of many columns; where there is no terminal, no row is broken."""
    (out if out.is_terminal else Console(width=WIDE, highlight=False)).print(table)
