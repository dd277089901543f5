"""Commands that messages advise, as they can be given."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from kilotune.errors import KilotuneError
from kilotune.recipe.functions import named_code
from kilotune.recipe.load import load_recipe

RECIPE = "recipe.yaml"  # of a run's folder


def next_commands(run: Path, arguments: Iterable[str], shown: Path | None = None) -> list[str]:
    """What runs the recipe of the folder `run` again, with each of `arguments`.

    It is `shown` as another folder where its own place is not to be told.
    """
    again = advised("run", run / RECIPE, shown and shown / RECIPE)
    return [f"{again} {more}" for more in arguments]


def advised(command: str, source: Path, shown: Path | None = None) -> str:
    """`kilotune COMMAND SOURCE`, of a recipe or a run's folder, with --trust-code if it needs that.

    `shown` stands in the place of `source`, where that is given.

    A command that began with `--set judge.metric=…` goes on from a file that names this code.
    """
    path = source if source.suffix == ".yaml" else source / RECIPE
    try:
        tree = load_recipe(path, runs=()).model_dump(mode="json")
    except KilotuneError:  # the advised command says so itself
        tree = {}
    trusting = " --trust-code" * bool(named_code(tree))
    return f"kilotune {command} {shlex.quote(str(shown or source))}{trusting}"
