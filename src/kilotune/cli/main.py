"""`kilotune`: the commands, one file each."""

from collections.abc import Callable
from typing import Annotated

import typer

from kilotune import __version__
from kilotune.cli import (
    ablate,
    augment,
    chat,
    check,
    compare,
    convert,
    decode,
    export,
    fetch,
    plan,
    predict,
    render,
    report,
    resume,
    run,
    runs,
    sample,
    select,
)
from kilotune.cli.option_groups import expanded

EXAMPLES = """Examples, from a file to answers:

    kilotune check reviews.csv

    kilotune render reviews.csv

    kilotune run reviews.csv

    kilotune predict runs/2026-01-31-reviews new.csv -o answered.csv
"""
FOUND = "1 something is worse than a note"


def _statuses(wanting: str = "") -> str:
    said = [wanting] if wanting else []
    return f"Exit status: {', '.join(['0 done', *said, '2 unusable input', '130 interrupted'])}."


app = typer.Typer(
    name="kilotune",
    help="Fine-tune a language model on about a thousand labelled examples, and know whether "
    "the result is any good.",
    epilog=f"{EXAMPLES}\n{_statuses('1 something was found wanting')}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _add(command: Callable[..., None], examples: str, wanting: str = "") -> None:
    app.command(epilog=f"{examples}\n{_statuses(wanting)}")(expanded(command))


_add(run.run, run.EXAMPLES)
_add(resume.resume, resume.EXAMPLES)
_add(predict.predict, predict.EXAMPLES, "1 rows were left unanswered")
_add(select.select, select.EXAMPLES)
_add(chat.chat, chat.EXAMPLES)
_add(decode.decode, decode.EXAMPLES)
_add(check.check, check.EXAMPLES, FOUND)
_add(convert.convert, convert.EXAMPLES)
_add(augment.augment, augment.EXAMPLES)
_add(render.render, render.EXAMPLES, FOUND)
_add(plan.plan, plan.EXAMPLES)
_add(ablate.ablate, ablate.EXAMPLES)
_add(runs.runs, runs.EXAMPLES)
_add(compare.compare, compare.EXAMPLES)
_add(report.report, report.EXAMPLES)
_add(export.export, export.EXAMPLES)
_add(sample.sample, sample.EXAMPLES)
_add(fetch.fetch, fetch.EXAMPLES)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kilotune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    app()
