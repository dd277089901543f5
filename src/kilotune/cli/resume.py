"""`kilotune resume`: go on with a stopped run."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.results import finish
from kilotune.cli.terminal import TerminalProgress, command

EXAMPLES = """Example:

    kilotune resume runs/2026-01-31-reviews
"""


def resume(
    run: Annotated[Path, typer.Argument(help="The folder of a run that was stopped.")],
    as_json: options.Json = False,
) -> None:
    """Go on with a stopped run from its last checkpoint."""
    with command(as_json):
        from kilotune.experiments.record import RunFolder

        RunFolder(run).read_recipe()  # a wrong folder is said before torch loads

        from kilotune import pipeline

        finish(pipeline.resume(run, TerminalProgress()), as_json)
