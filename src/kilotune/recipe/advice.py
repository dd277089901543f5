"""Commands that messages advise, as they can be given."""

import shlex
from pathlib import Path

from kilotune.errors import KilotuneError
from kilotune.recipe.functions import named_code
from kilotune.recipe.load import load_recipe

RECIPE = "recipe.yaml"  # of a run's folder


def advised(command: str, source: Path) -> str:
    """`kilotune COMMAND SOURCE`, of a recipe or a run's folder, with --trust-code if it needs that.

    A command that began with `--set judge.metric=…` goes on from a file that names this code.
    """
    path = source if source.suffix == ".yaml" else source / RECIPE
    try:
        tree = load_recipe(path, runs=()).model_dump(mode="json")
    except KilotuneError:  # the advised command says so itself
        tree = {}
    trusting = " --trust-code" * bool(named_code(tree))
    return f"kilotune {command} {shlex.quote(str(source))}{trusting}"
