"""`--trust-code`: the Python code that a recipe's file, or a run's folder, names."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kilotune.cli.terminal import log, put

if TYPE_CHECKING:
    from kilotune.recipe.schema import Recipe

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Allow Python code named in the recipe or run folder; code named by --set is always "
        "allowed.",
        show_default="refused",
    ),
]


def read_run(
    run: Path, trust_code: bool, runs: Collection[str], moved: Sequence[str] = ()
) -> "Recipe":
    """The recipe of `run`; code of its parts `runs`, which is going to be run, is named.

    Raises KilotuneError for a folder that is not a run, for such code that is not trusted, and for
    a setting in `moved` that is not a path.
    """
    from kilotune.runs.record import RunFolder

    recipe = RunFolder(run).read_recipe(trust_code=trust_code, runs=runs, moved=moved)
    say_code(recipe, trust_code, runs)
    return recipe


def say_code(recipe: "Recipe", trust_code: bool, runs: Collection[str]) -> None:
    """Say which code of the parts `runs` of `recipe` is going to be run because it is trusted."""
    from kilotune.recipe.functions import named_code

    named = named_code(recipe.model_dump(mode="json"), runs) if trust_code else ()
    if named:
        put(log, f"running Python code named by the recipe: {', '.join(named)}", lead="  ")
