"""`kilotune verify`: does an exported model answer in another program as it was judged?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import (
    WANTING,
    TerminalProgress,
    command,
    one_line,
    out,
    print_json,
    put,
    shown,
)
from kilotune.cli.trust import TrustCode

if TYPE_CHECKING:
    from kilotune.evaluation.fidelity import Fidelity

# So many differing answers are shown.
SHOWN = 10


def verify(
    export: Annotated[
        Path, typer.Argument(help="What `kilotune export` wrote, or a GGUF file made of it.")
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The finished run it is of.", show_default="looked for"),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            "--in",
            help="transformers, mlx (a merged model), peft (an adapter), llama.cpp (GGUF).",
            show_default="the one it is for",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="URL",
            help="A llama-server that serves the file already.",
            show_default="loaded here",
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            "-n", "--examples", min=1, help="The first N prompts of the test.", show_default="all"
        ),
    ] = None,
    settings: options.Settings = None,
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Put a run's test prompts to its export in another program, greedily, and compare.

    Said are: prompts that become other tokens there, answers that differ from the judged ones and
    by how much, figures with intervals, size and speed. The run keeps it, with its report and card.
    """
    with command(as_json):
        from kilotune.workflows.verify import verify as put_to

        found = put_to(
            export,
            run,
            TerminalProgress(),
            program=program,
            at=at or "",
            examples=examples,
            trust_code=trust_code,
            moved=settings or (),
        )
        status = WANTING if found.faults else 0
        _print(found, status, as_json)
    raise typer.Exit(status)


def _print(found: "Fidelity", status: int, as_json: bool) -> None:
    from kilotune.evaluation.task_metrics import TITLES
    from kilotune.messages.sentences import say

    faults = [say(fault) for fault in found.faults]
    if as_json:
        fields = {"line": str(found), "equal": found.equal, "faults": faults}
        print_json({**shown(found), **fields}, status)
        return
    put(out, f"{found}.", style="bold")
    same = found.prompts - len(found.apart)
    put(out, f"{same} of {found.prompts} prompts are the token ids that were judged.")
    for name, figure in found.figures.items():
        put(out, f"{TITLES.get(name, name)}: {figure}; judged: {found.judged[name]}")
    if found.differences:
        table = new_table("prompt", "judged", "said", right=("token", "gap, nats"))
        for one in found.differences[:SHOWN]:
            place = "–" if one.token is None else str(one.token)
            gap = "–" if one.gap is None else f"{one.gap:.4f}"
            texts = (one.id, one_line(one.judged), one_line(one.said))
            table.add_row(*map(Text, texts), place, gap)
        out.print(table)
    for fault in faults:
        put(out, f"{fault}.", style="bold yellow")
