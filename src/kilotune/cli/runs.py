"""`kilotune runs`: what was run, listed and filtered."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.tables import print_wide
from kilotune.cli.terminal import command, print_json

SHOWN = ("name", "state", "verdict", "seconds")


def runs(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of runs.", show_default="runs"),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Which runs: settings and figures with =, !=, <, <=, >, >=, ~ (contains), and, "
            "or, not, brackets.",
            show_default="all",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help="By which field, the greatest first; with - before it, the least.",
            show_default="by time",
        ),
    ] = None,
    show: Annotated[
        list[str] | None,
        typer.Option(help="One more column, by the name of the field.", show_default="none"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List runs with their settings, validation figures and cost; of the test nothing."""
    with command(as_json):
        from kilotune.runs.catalogue import find_runs, select
        from kilotune.runs.query import Condition, parse_condition

        condition = parse_condition(where) if where is not None else None
        entries = find_runs(places or [Path("runs")])
        chosen = select(entries, condition, sort)
        if as_json:
            print_json({"runs": [{"run": e.folder, **e.fields} for e in chosen]})
            return
        known = {name: None for entry in entries for name in entry.fields}
        columns = [*SHOWN[:-1], *(n for n in known if n.startswith("val.")), SHOWN[-1]]
        columns += show or []
        Condition(lambda run: True, tuple(columns)).check_fields({*known, *SHOWN})
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            side: Literal["left", "right"] = "left" if name in SHOWN[:3] else "right"
            table.add_column(name, overflow="fold", justify=side)
        for entry in chosen:
            table.add_row(*(Text(_cell(entry.fields.get(name))) for name in columns))
        print_wide(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
