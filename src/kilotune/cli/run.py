"""`kilotune run`: the main job."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.results import finish
from kilotune.cli.terminal import TerminalProgress, command
from kilotune.cli.trust import TrustCode, say_code

EXAMPLES = """Examples:

    kilotune run reviews.csv --text text --label label

    kilotune run reviews.csv --test test.csv --preset article --out runs/classic

    kilotune run visits.csv --group patient --system "One of: {labels}."

    kilotune run questions.jsonl --column prompt=ask --column completion=reply

    kilotune run reviews.csv --unlabeled more.csv

    kilotune run recipe.yaml --set tune.learning_rate=2e-4 --set tune.rank=4
"""


def run(
    source: options.Source,
    text: options.TextColumn = None,
    label: options.LabelColumn = None,
    group: options.GroupColumn = None,
    columns: options.Columns = None,
    format: options.Format = None,
    task: options.Task = None,
    val: options.ValidationFile = None,
    test: options.TestFile = None,
    unlabeled: options.UnlabeledFile = None,
    train_on: options.TrainOn = None,
    system: options.System = None,
    model: options.Model = None,
    chat_template: options.ChatTemplate = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    trust_code: TrustCode = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the run; must be new.", show_default="runs/DATE-NAME"
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check, baseline, tune and judge: from a labelled file to an adapter and a report."""
    with command(as_json):
        from kilotune import distributed
        from kilotune.preparation.prepare import prepare
        from kilotune.recipe.load import recipe_for
        from kilotune.runs.record import check_new

        data = options.data_settings(
            text=text, label=label, group=group, columns=columns, format=format, task=task,
            val=val, test=test, train_on=train_on, system=system,
        )  # fmt: skip
        asked = {"name": model, "chat_template": chat_template}
        recipe = recipe_for(
            source, data=data, model=asked, unlabeled=unlabeled, preset=preset,
            overrides=settings or (), trust_code=trust_code,
        )  # fmt: skip
        say_code(recipe, trust_code)
        progress = TerminalProgress()
        if out is not None and distributed.leads():
            check_new(out)
        prepared = prepare(recipe, progress)  # its errors are said before torch takes seconds

        from kilotune.workflows import run as pipeline

        finish(pipeline.start(prepared, out, progress), as_json)
