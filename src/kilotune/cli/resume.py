"""`kilotune resume`: go on with a stopped run."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.results import finish
from kilotune.cli.terminal import TerminalProgress, command
from kilotune.cli.trust import TrustCode, read_run


def resume(
    run: Annotated[
        Path, typer.Argument(help="The folder of a run or an ablation that was stopped.")
    ],
    settings: options.Settings = None,
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Go on with a stopped run from its last checkpoint, or with a stopped ablation."""
    with command(as_json):
        from kilotune.recipe.functions import PARTS
        from kilotune.runs.record import RunFolder

        if RunFolder(run).ablation:
            from kilotune.cli.ablate import go_on

            go_on(run, moved=settings or (), trust_code=trust_code, as_json=as_json)
            return
        read_run(
            run, trust_code, PARTS, settings or ()
        )  # a wrong folder is said before torch loads

        from kilotune.workflows import run as pipeline

        progress = TerminalProgress()
        found = pipeline.resume(run, progress, trust_code=trust_code, moved=settings or ())
        finish(found, as_json)
