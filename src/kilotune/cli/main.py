"""`kilotune`: the commands, one file each."""

from typing import Annotated

import typer

from kilotune import __version__
from kilotune.cli import (
    check,
    convert,
    export,
    fetch,
    plan,
    predict,
    render,
    report,
    resume,
    run,
    sample,
)

app = typer.Typer(
    name="kilotune",
    help="Fine-tune a language model on about a thousand labelled examples, and know whether "
    "the result is any good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.command(epilog=run.EXAMPLES)(run.run)
app.command(epilog=resume.EXAMPLES)(resume.resume)
app.command(epilog=predict.EXAMPLES)(predict.predict)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=convert.EXAMPLES)(convert.convert)
app.command(epilog=render.EXAMPLES)(render.render)
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=sample.EXAMPLES)(sample.sample)
app.command(epilog=fetch.EXAMPLES)(fetch.fetch)


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
