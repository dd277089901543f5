"""`kilotune fetch`: get a built-in model or a dictionary before going offline."""

from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, log, print_result


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="A built-in model: smollm2; a sentence encoder: minilm; or a dictionary: wordnet "
            "(English synonyms), cilin (Chinese)."
        ),
    ] = "smollm2",
    as_json: options.Json = False,
) -> None:
    """Fetch a built-in model or a dictionary into the cache, so that runs need no network."""
    with command(as_json):
        from kilotune.augmentation.dictionaries import DICTIONARIES, fetch_dictionary

        kind = "dictionary" if name in DICTIONARIES else "model"
        if kind == "dictionary":
            with log.status(f"fetching {name}"):
                folder = fetch_dictionary(name)
        else:
            from kilotune.models.builtin import make_builtin

            with log.status(f"fetching and converting {name}"):
                folder = make_builtin(name)
        print_result({kind: name, "folder": str(folder)}, str(folder), as_json=as_json)
