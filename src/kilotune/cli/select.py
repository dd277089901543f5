"""`kilotune select`: which rows to label next."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.data_options import DataOptions
from kilotune.cli.findings import print_each
from kilotune.cli.option_groups import Only
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import (
    TerminalProgress,
    command,
    log,
    one_line,
    out,
    print_json,
    print_line,
    shown,
)
from kilotune.cli.trust import TrustCode, read_run

if TYPE_CHECKING:
    from kilotune.workflows.select import RowSelection

# What the terminal shows; the file has all.
SHOWN = 20


@dataclass(frozen=True)
class Choosing:
    """How rows are chosen."""

    strategy: Annotated[
        str,
        typer.Option(
            help="auto, diverse, random; of closed labels margin or entropy; else likelihood."
        ),
    ] = "auto"
    seed: Annotated[
        int | None,
        typer.Option(help="What chance is drawn by.", show_default="the run's"),
    ] = None


def select(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    file: Annotated[Path, typer.Argument(help="Rows to choose from, in the format trained on.")],
    *,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="How many to choose.")] = 50,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="The file to write; must be new.", show_default="FILE-to-label"
        ),
    ] = None,
    choosing: Choosing,
    data: Annotated[DataOptions, Only("text", "columns", "images")],
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Choose which unlabelled rows a person should label next, and write them to a file.

    Those that the tuned model is least sure of and that are unlike each other. Labelled texts and
    repeats are left out. The file has an empty column for the labels.
    """
    with command(as_json):
        from kilotune.data.files.readers import read_table
        from kilotune.recipe.functions import MODEL

        read_run(run, trust_code, MODEL)
        read_table(file)  # what is wrong with it is said before the libraries load

        from kilotune.preparation.prepare import NewRows
        from kilotune.workflows.select import select as choose

        done = choose(
            run,
            NewRows(file, data.named(), data.images),
            count,
            output,
            strategy=choosing.strategy,
            seed=choosing.seed,
            progress=TerminalProgress(),
            trust_code=trust_code,
        )
        if as_json:
            print_json({"files": [file], **shown(done)})
        else:
            _print(done)


def _print(done: "RowSelection") -> None:
    print_each(done.findings, log)
    for why, rows in done.left_out.items():
        log.print(f"  left out ({why}): {rows}")
    table = new_table("rank", "row", "uncertainty", "why", "text")
    for rank, row in enumerate(done.rows[:SHOWN], 1):
        sure = "" if row.uncertainty is None else f"{row.uncertainty:.3f}"
        table.add_row(*map(Text, (str(rank), row.row, sure, row.why, one_line(row.text))))
    out.print(table)
    chosen = f"{len(done.rows)} of {done.candidates} rows chosen ({done.strategy})"
    print_line(f"{chosen}: {done.out}")
