"""`kilotune report`: the page of a run, made again from its records."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, out, print_json

EXAMPLES = """Example:

    kilotune report runs/2026-01-31-reviews
"""


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    as_json: options.Json = False,
) -> None:
    """Make a run's report.html again from its records."""
    with command(as_json):
        from kilotune.reports.build import build_report
        from kilotune.runs.record import RunFolder

        folder = RunFolder(run)
        folder.read_recipe(runs=())
        with folder.writing():
            path = build_report(folder)
        if as_json:
            print_json({"report": str(path)})
        else:
            out.print(str(path), markup=False, soft_wrap=True)
