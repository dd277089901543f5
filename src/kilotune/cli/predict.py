"""`kilotune predict`: label new texts."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli.terminal import TerminalProgress, command, log, out, print_json

EXAMPLES = """Example:

    kilotune predict runs/2026-01-31-reviews new.csv -o labelled.csv
"""


def predict(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON or JSON Lines with the texts.")],
    output: Annotated[Path, typer.Option("-o", "--out", help="The file to write; must be new.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Answer every row of a file: its columns, `prediction` and, for labels, `probability`."""
    with command(as_json):
        from kilotune.data.readers import read_table
        from kilotune.experiments.record import RunFolder

        RunFolder(run).read_recipe()
        rows = len(read_table(file).rows)

        from kilotune.predict import predict as label

        unlabelled = label(run, file, output, TerminalProgress())
        if unlabelled:
            log.print(f"  {unlabelled} of {rows} answers named no label; their prediction is empty")
        if as_json:
            print_json({"out": str(output), "rows": rows, "unlabelled": unlabelled})
        else:
            out.print(f"{rows} rows: {output}", markup=False, soft_wrap=True)
