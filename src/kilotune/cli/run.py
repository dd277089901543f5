"""`kilotune run`: the main job."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.data_options import DataOptions
from kilotune.cli.results import finish
from kilotune.cli.terminal import TerminalProgress, command


def run(
    source: options.Source,
    *,
    data: DataOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the run; must be new.", show_default="runs/DATE-NAME"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check, baseline, tune and judge: from a labelled file to an adapter and a report."""
    with command(as_json):
        from kilotune import distributed
        from kilotune.preparation.prepare import prepare
        from kilotune.runs.record import check_new

        recipe = data.recipe(source)
        progress = TerminalProgress()
        if out is not None and distributed.leads():
            check_new(out)
        prepared = prepare(recipe, progress)  # its errors are said before torch takes seconds

        from kilotune.workflows import run as pipeline

        finish(pipeline.start(prepared, out, progress), as_json)
