"""`kilotune`: the commands, one file each."""

import tomllib
from collections.abc import Callable
from importlib.resources import files
from typing import Annotated

import typer

from kilotune import __version__
from kilotune.cli import (
    ablate,
    advise,
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
    verify,
)
from kilotune.cli.commands import Command
from kilotune.cli.option_groups import expanded

EXAMPLES = tomllib.loads((files("kilotune.cli") / "examples.toml").read_text(encoding="utf-8"))
FOUND = "1 something is worse than a note"


def _epilog(command: str, wanting: str) -> str:
    said = [wanting] if wanting else []
    statuses = ", ".join(["0 done", *said, "2 unusable input", "130 interrupted"])
    return f"{EXAMPLES[command]}\nExit status: {statuses}."


app = typer.Typer(
    name="kilotune",
    help="Fine-tune a language model on about a thousand labelled examples, and know whether "
    "the result is any good.",
    epilog=_epilog("kilotune", "1 something was found wanting"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _add(command: Callable[..., None], wanting: str = "") -> None:
    app.command(epilog=_epilog(command.__name__, wanting), cls=Command)(expanded(command))


_add(run.run)
_add(resume.resume)
_add(predict.predict, "1 rows were left unanswered")
_add(select.select)
_add(chat.chat)
_add(decode.decode)
_add(check.check, FOUND)
_add(convert.convert)
_add(augment.augment)
_add(render.render, FOUND)
_add(advise.advise, "1 the data are found wanting")
_add(plan.plan)
_add(ablate.ablate)
_add(runs.runs)
_add(compare.compare)
_add(report.report)
_add(export.export)
_add(verify.verify, "1 it does not answer as judged")
_add(sample.sample)
_add(fetch.fetch)


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
