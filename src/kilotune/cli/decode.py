"""`kilotune decode`: how a run's answers are best generated."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import TerminalProgress, command, out, print_json, print_line, put
from kilotune.cli.trust import TrustCode, read_run


def decode(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    settings: options.Settings = None,
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
        read_run(run, trust_code, PARTS, settings or ())
        folder.check_finished()  # said before the libraries load

        from kilotune.workflows.decode import decode as choose

        choice = choose(run, TerminalProgress(), trust_code=trust_code, moved=settings or ())
        if as_json:
            print_json({"run": run, **DecodingDocument(choice=choice).content()})
            return
        part = f"on {choice.decided} validation examples that were not raced on"
        table = new_table(part, right=("score", "greedy"))
        for name, adoption in choice.proof.items():
            table.add_row(name, f"{adoption.after:.3f}", f"{adoption.before:.3f}")
        if choice.proof:
            out.print(table)
        put(out, f"{choice.reason} ({choice.answers} answers)", style="bold")
        print_line(f"Record: {folder / DECODING}")
