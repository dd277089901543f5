"""The options that commands share: one name, one meaning and one default, wherever they are."""

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    Path,
    typer.Argument(metavar="DATA|RECIPE", help="A labelled file, a folder, or a recipe."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of the recipe; of a run that goes on only where its files lie now, as "
        "data.train=FILE. Repeatable.",
        show_default="none",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default="off")]
