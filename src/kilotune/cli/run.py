"""`kilotune run`: the main job."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli.results import finish
from kilotune.cli.terminal import TerminalProgress, command, parse_columns

EXAMPLES = """Examples:

    kilotune run reviews.csv --text text --label label

    kilotune run reviews.csv --test test.csv --preset article --out runs/classic

    kilotune run questions.jsonl --column prompt=ask --column completion=reply

    kilotune run recipe.yaml --set tune.learning_rate=2e-4 --set tune.rank=4
"""


def run(
    source: Annotated[Path, typer.Argument(help="A labelled file, or a recipe (.yaml).")],
    text: Annotated[str | None, typer.Option(help="The column with the text.")] = None,
    label: Annotated[str | None, typer.Option(help="The column with the label.")] = None,
    val: Annotated[
        Path | None, typer.Option(help="Validation file; without it a part is split off.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Held-out test file; without it a part is split off.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="The schema of the rows; detected without it.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where a field is; repeatable."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classify, generate, extract or chat; detected without it.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message for examples without one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="'smollm2' (built in), a model folder, or a hub id.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="auto (the default), article, or article-top-layers.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the recipe; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/DATE-NAME without it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check, baseline, tune and judge: from a labelled file to an adapter and a report."""
    with command(as_json):
        from kilotune.data.readers import read_table
        from kilotune.recipe.load import recipe_for

        data = {
            "text": text, "label": label, "format": format, "task": task, "system": system,
            "columns": parse_columns(columns or []) or None, "validation": val, "test": test,
        }  # fmt: skip
        recipe = recipe_for(source, data=data, model=model, preset=preset, overrides=settings or ())
        read_table(recipe.data.train)  # what is wrong with it is said before torch takes seconds

        from kilotune import pipeline

        finish(pipeline.run(recipe, out, TerminalProgress()), as_json)
