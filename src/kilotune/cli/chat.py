"""`kilotune chat`: a conversation with the tuned model, the base model beside it."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kilotune.cli.terminal import command, log, out, put
from kilotune.cli.trust import TrustCode, read_run
from kilotune.errors import KilotuneError

if TYPE_CHECKING:
    from kilotune.workflows.chat import Chat

# A terminal writes ^C where the cursor stands, behind the last line. Were that line full, the two
# signs would wrap, and what Live then takes back would be a line short.
ECHO = len("^C")
HELP = """/set                   how answers are decoded
/set temperature 0.7   change it; any decoding setting of the recipe
/base                  show the base model, or no longer
/reset                 forget what was said
/quit                  end; so does Ctrl-D. Ctrl-C stops an answer"""
PROMPT = "> "


def chat(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="Show the base model beside the tuned one.")
    ] = True,
    trust_code: TrustCode = False,
) -> None:
    """Talk to the tuned model, with the base model side by side: `/help` says how.

    Each line is put to the model as the rows of the training file were.
    """
    with command():
        from kilotune.recipe.functions import MODEL
        from kilotune.runs.record import RunFolder

        folder = RunFolder(run)
        read_run(run, trust_code, MODEL)
        folder.check_finished()  # said before the libraries load

        from kilotune.workflows import chat as workflow

        with log.status("Loading the model"):
            opened = workflow.chat(run, trust_code=trust_code)
        _talk(opened, base)


def _talk(chat: "Chat", base: bool) -> None:
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  lines can be edited and called back

        put(log, "/help says what there is; Ctrl-C stops an answer", style="dim")
    for line in _lines():
        try:
            if line == "/quit":
                return
            if line == "/base":
                base = not base
                put(out, f"the base model is {'shown' if base else 'not shown'}")
            elif line.startswith("/"):
                _order(chat, line)
            else:
                _answer(chat, line, base)
        except KilotuneError as error:
            put(out, str(error), style="red")


def _lines() -> Iterator[str]:
    """What the user says, until the end of the input. Ctrl-C leaves a line."""
    interactive = sys.stdin.isatty()
    while True:
        try:
            line = input(PROMPT if interactive else "").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not interactive:
                raise
            put(out, "\n/quit ends", style="dim")
            continue
        if line:
            yield line


def _order(chat: "Chat", line: str) -> None:
    name, *rest = line.split(maxsplit=2)
    if name == "/reset":
        chat.reset()
        put(out, "forgotten")
    elif name == "/set" and len(rest) == 2:
        chat.set(*rest)
        put(out, f"{rest[0]} is {getattr(chat.settings, rest[0])}")
    elif name == "/set" and not rest:
        settings = chat.settings.model_dump(exclude={"search"})
        put(out, ", ".join(f"{key} {value}" for key, value in settings.items()))
    else:
        put(out, HELP)


def _answer(chat: "Chat", line: str, base: bool) -> None:
    """Both answers as they grow: side by side on a terminal, one after the other elsewhere."""
    from kilotune.workflows.chat import BASE, TUNED

    names = (BASE, TUNED) if base else (TUNED,)
    said = dict.fromkeys(names, "")
    live = Live(console=out, auto_refresh=False)
    with live if out.is_terminal else nullcontext():
        for name in names:

            def show(text: str, name: str = name) -> None:
                said[name] = text
                if out.is_terminal:
                    live.update(_columns(said), refresh=True)

            try:
                chat.ask(name, line, show)
            except KeyboardInterrupt:
                show(f"{said[name]} [stopped]".lstrip())
    chat.turns += 1
    if not out.is_terminal:
        for name, text in said.items():
            put(out, text, lead=f"{name}: ")


def _columns(said: dict[str, str]) -> Table:
    table = Table(box=None, width=out.width - ECHO - 1, padding=(0, 2, 1, 0))
    for name in said:
        table.add_column(name, ratio=1, header_style="bold", overflow="fold")
    table.add_row(*(Text(text) for text in said.values()))
    return table
