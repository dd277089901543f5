"""`kilotune fetch`: get a built-in model before going offline."""

from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, log, out, print_json

EXAMPLES = """Example:

    kilotune fetch smollm2
"""


def fetch(
    name: Annotated[str, typer.Argument(help="A built-in model: smollm2.")] = "smollm2",
    as_json: options.Json = False,
) -> None:
    """Fetch a built-in model into the cache, so that runs need no network."""
    with command(as_json):
        from kilotune.models.builtin import make_builtin

        with log.status(f"fetching and converting {name}"):
            folder = make_builtin(name)
        if as_json:
            print_json({"model": name, "folder": str(folder)})
        else:
            out.print(str(folder), markup=False, soft_wrap=True)
