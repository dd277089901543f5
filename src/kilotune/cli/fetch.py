"""`kilotune fetch`: get a built-in model, a dictionary or a converter before going offline."""

from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, log, print_result


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="A built-in model: smollm2; a sentence encoder: minilm; or a dictionary: wordnet "
            "(English synonyms), cilin (Chinese); or llama.cpp, its converter to GGUF files."
        ),
    ] = "smollm2",
    as_json: options.Json = False,
) -> None:
    """Fetch a built-in model, a dictionary or a converter into the cache: runs need no network."""
    with command(as_json):
        from kilotune.augmentation.dictionaries import DICTIONARIES, fetch_dictionary

        kind = "dictionary" if name in DICTIONARIES else "model"
        if kind == "dictionary":
            with log.status(f"fetching {name}"):
                folder = fetch_dictionary(name)
        elif name == "llama.cpp":
            from kilotune.exports.llama_converter import fetch_converter

            kind = "converter"
            with log.status(f"fetching the converter of {name}"):
                folder = fetch_converter()
        else:
            from kilotune.models.builtin import make_builtin

            with log.status(f"fetching and converting {name}"):
                folder = make_builtin(name)
        print_result({kind: name, "folder": str(folder)}, str(folder), as_json=as_json)
