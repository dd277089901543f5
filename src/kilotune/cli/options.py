"""The options that commands share: one name, one meaning and one default, wherever they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kilotune.errors import KilotuneError

Source = Annotated[
    Path,
    typer.Argument(metavar="DATA|RECIPE", help="A labelled file, a folder, or a recipe."),
]
TextColumn = Annotated[
    str | None, typer.Option("--text", help="The column with the text.", show_default="by name")
]
LabelColumn = Annotated[
    str | None, typer.Option("--label", help="The column with the label.", show_default="by name")
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        "--group", help="The column whose values must not be split apart.", show_default="none"
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="The column with a field of the format; repeatable.",
        show_default="by name",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="text-label, prompt-completion, alpaca, query-response, messages, sharegpt or llava.",
        show_default="detected",
    ),
]
Task = Annotated[
    str | None,
    typer.Option("--task", help="classify, generate, extract or chat.", show_default="detected"),
]
ValidationFile = Annotated[
    Path | None,
    typer.Option("--val", help="The validation file.", show_default="a part is split off"),
]
TestFile = Annotated[
    Path | None,
    typer.Option("--test", help="The held-out test file.", show_default="a part is split off"),
]
UnlabeledFile = Annotated[
    Path | None,
    typer.Option(
        "--unlabeled",
        help="Texts that the tuned model labels itself, tuned on where that helps.",
        show_default="none",
    ),
]
TrainOn = Annotated[
    str | None,
    typer.Option(
        "--train-on",
        help="last, all_assistant, completion or auto.",
        show_default="auto: all answers of chats, else the last",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system",
        help="The system message of examples without one; {labels} lists the labels.",
        show_default="asks for a label where there are any, else none",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="'smollm2' (built in), a folder, a GGUF file, or a hub id. "
        "`render` needs its tokenizer alone; `plan` no weights, a config.json will do.",
        show_default="smollm2",
    ),
]
ChatTemplate = Annotated[
    str | None,
    typer.Option(
        "--chat-template",
        help="auto (the model's own), chatml, plain, or a Jinja file.",
        show_default="auto",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", help="auto, article or article-top-layers.", show_default="auto"),
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


def data_settings(
    *,
    text: str | None,
    label: str | None,
    group: str | None,
    columns: list[str] | None,
    format: str | None,
    task: str | None,
    val: Path | None = None,
    test: Path | None = None,
    train_on: str | None = None,
    system: str | None = None,
) -> Mapping[str, Any]:
    """What the options say of the recipe's `data`; None where they say nothing."""
    return {
        "text": text, "label": label, "group": group, "format": format, "task": task,
        "columns": parse_columns(columns or []) or None, "validation": val, "test": test,
        "train_on": train_on, "system": system,
    }  # fmt: skip


def parse_columns(arguments: list[str]) -> dict[str, str]:
    """`FIELD=COLUMN` arguments as a mapping. Raises KilotuneError for another form."""
    columns = {}
    for argument in arguments:
        field, equals, column = argument.partition("=")
        if not (field and equals and column):
            raise KilotuneError(
                f"cannot read --column {argument}", fix="Write it as --column prompt=question"
            )
        columns[field] = column
    return columns
