"""`kilotune report`: the page of a run, made again from its records."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, print_result


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
        print_result({"report": str(path)}, str(path), as_json=as_json)
