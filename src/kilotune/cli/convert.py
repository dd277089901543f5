"""`kilotune convert`: from any format and kind of file to any other."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.data_options import COLUMNS, DataOptions
from kilotune.cli.option_groups import Only
from kilotune.cli.terminal import TerminalProgress, command, log, print_result, put


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A data file, or a folder of them.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; its ending says the kind.")
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option(
            help="The format to write, by the names of --format.",
            show_default="text-label stays, all else becomes messages",
        ),
    ] = None,
    data: Annotated[DataOptions, Only(*COLUMNS)],
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite OUT.", show_default="off")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write a file in another format. Nothing is lost without being said."""
    with command(as_json):
        from kilotune.data.conversion import convert as write

        done = write(
            source,
            target,
            to=to or "auto",
            reading=data.reading(),
            force=force,
            progress=TerminalProgress(),
        )
        if done.left_behind:
            put(log, f"columns left behind: {', '.join(done.left_behind)}", lead="  ")
        document = {
            "files": [source],
            "task": done.dataset.task,
            "examples": {"data": len(done.dataset.examples)},
            "out": done.out,
            "rows": done.rows,
            "from": done.dataset.format,
            "to": done.format,
            "left_behind": done.left_behind,
            "findings": done.dataset.findings,
        }
        print_result(document, f"{done.rows} rows: {done.out}", as_json=as_json)
