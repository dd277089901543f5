"""`kilotune convert`: from any format and kind of file to any other."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli.terminal import (
    TerminalProgress,
    command,
    log,
    out,
    parse_columns,
    print_json,
    put,
)

EXAMPLES = """Examples:

    kilotune convert alpaca.json train.jsonl

    kilotune convert chats.parquet chats.json --to sharegpt

    kilotune convert faq.xlsx faq.jsonl --column prompt=Frage --column completion=Antwort
"""


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A data file, or a folder of them.")],
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; its ending says the kind.")
    ],
    to: Annotated[
        str,
        typer.Option(help="The format to write: messages, sharegpt, alpaca …; docs/data.md."),
    ] = "auto",
    format: Annotated[str, typer.Option(help="The format of IN; detected without it.")] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="IN's column for a field."),
    ] = None,
    group: Annotated[str | None, typer.Option(help="A column of groups to carry over.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a file in another format. Nothing is lost without being said."""
    with command(as_json):
        from kilotune.data.convert import convert as write

        done = write(
            source,
            target,
            to=to,
            format=format,
            columns=parse_columns(columns or []),
            group=group,
            force=force,
            progress=TerminalProgress(),
        )
        if done.left_behind:
            put(log, f"columns left behind: {', '.join(done.left_behind)}", lead="  ")
        if as_json:
            print_json(
                {
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
            )
        else:
            out.print(f"{done.rows} rows: {done.out}", markup=False, soft_wrap=True)
