"""`kilotune decode`: how a run's answers are best generated."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from kilotune.cli import options
from kilotune.cli.terminal import TerminalProgress, command, out, print_json, put
from kilotune.cli.trust import TrustCode, read_run

EXAMPLES = """Example:

    kilotune decode runs/2026-01-31-reviews
"""


def decode(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Choose temperature, top-k, top-p and repetition penalty on the validation examples.

    Greedy decoding stays unless another is surely better. What is chosen is what predict, chat and
    export use from then on.
    """
    with command(as_json):
        from kilotune.recipe.functions import PARTS
        from kilotune.runs.outcomes import DecodingDocument
        from kilotune.runs.record import DECODING, RunFolder

        folder = RunFolder(run)
        read_run(run, trust_code, PARTS)
        folder.check_finished()  # said before the libraries load

        from kilotune.workflows.decode import decode as choose

        choice = choose(run, TerminalProgress(), trust_code=trust_code)
        if as_json:
            print_json({"run": run, **DecodingDocument(choice=choice).content()})
            return
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column(f"on {choice.decided} validation examples that were not raced on")
        for column in ("score", "greedy"):
            table.add_column(column, justify="right")
        for name, adoption in choice.proof.items():
            table.add_row(name, f"{adoption.after:.3f}", f"{adoption.before:.3f}")
        if choice.proof:
            out.print(table)
        put(out, f"{choice.reason} ({choice.answers} answers)", style="bold")
        out.print(f"Record: {folder / DECODING}", markup=False, soft_wrap=True)
