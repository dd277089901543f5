"""`kilotune sample`: a real labelled file to try kilotune on."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, print_result


def sample(
    name: Annotated[str, typer.Argument(help="movie-reviews")],
    folder: Annotated[
        Path, typer.Option("--out", help="Where to write it.", show_default="this folder")
    ] = Path(),
    as_json: options.Json = False,
) -> None:
    """Write a real labelled file and a test file (300 and 500 examples)."""
    with command(as_json):
        from kilotune.data.samples import write_sample

        train, test = write_sample(name, folder)
        written = {"train": str(train), "test": str(test)}
        print_result(written, "\n".join(written.values()), as_json=as_json)
