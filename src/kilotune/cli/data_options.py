"""The options that make a recipe: of the data and of how it is tuned on."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kilotune.cli.options import Settings
from kilotune.cli.trust import TrustCode, say_code
from kilotune.errors import KilotuneError

if TYPE_CHECKING:
    from kilotune.data.column_plan import Reading
    from kilotune.recipe.schema import Recipe

# Fields that say how a file is read.
COLUMNS = ("text", "label", "group", "columns", "format", "images", "keep", "ignore")
# Fields that say how its examples are put to a model.
RENDERED = (
    *COLUMNS, "split", "task", "train_on", "system", "model", "chat_template", "preset", "settings",
    "trust_code",
)  # fmt: skip


@dataclass(frozen=True)
class DataOptions:
    """What the options say of a recipe; None where they say nothing.

    A command has all of them, or those that `Only` names; they are listed in this order.
    """

    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            metavar="COLUMN",
            help="The column with the text; several (--text Subject --text Body) are joined.",
            show_default="by name",
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option("--label", help="The column with the label.", show_default="by name"),
    ] = None
    group: Annotated[
        str | None,
        typer.Option(
            "--group", help="The column whose values must not be split apart.", show_default="none"
        ),
    ] = None
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="FIELD=COLUMN",
            help="The column with a field of the format; repeatable, several of one are joined.",
            show_default="by name",
        ),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="FOLDER",
            help="The folder that paths of images begin in.",
            show_default="the data file's",
        ),
    ] = None
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="COLUMN",
            help="The column that says of each row: train, validation or test.",
            show_default="none",
        ),
    ] = None
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="COLUMN=VALUE",
            help="Read these rows alone: answer=accept, 'rating>=4'; repeatable.",
            show_default="all",
        ),
    ] = None
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="COLUMN",
            help="A column that is meant not to be read; repeatable.",
            show_default="none",
        ),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="text-label, prompt-completion, alpaca, query-response, messages, sharegpt or "
            "llava.",
            show_default="detected",
        ),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            "--task", help="classify, generate, extract or chat.", show_default="detected"
        ),
    ] = None
    val: Annotated[
        Path | None,
        typer.Option("--val", help="The validation file.", show_default="a part is split off"),
    ] = None
    test: Annotated[
        Path | None,
        typer.Option("--test", help="The held-out test file.", show_default="a part is split off"),
    ] = None
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            "--unlabeled",
            help="Texts that the tuned model labels itself, tuned on where that helps.",
            show_default="none",
        ),
    ] = None
    train_on: Annotated[
        str | None,
        typer.Option(
            "--train-on",
            help="last, all_assistant, completion or auto.",
            show_default="auto: all answers of chats, else the last",
        ),
    ] = None
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            help="The system message of examples without one; {labels} lists the labels.",
            show_default="asks for a label where there are any, else none",
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="'smollm2' (built in), a folder, a GGUF file, or a hub id. "
            "`render` needs its tokenizer alone; `plan` no weights, a config.json will do.",
            show_default="smollm2",
        ),
    ] = None
    chat_template: Annotated[
        str | None,
        typer.Option(
            "--chat-template",
            help="auto (the model's own), chatml, plain, or a Jinja file.",
            show_default="auto",
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="auto, article or article-top-layers.", show_default="auto"),
    ] = None
    settings: Settings = None
    trust_code: TrustCode = False

    def recipe(
        self,
        source: Path,
        *,
        overrides: Iterable[str] = (),
        runs: Collection[str] | None = None,
    ) -> "Recipe":
        """The recipe in `source`, or one for that file, with what the options say over it.

        `overrides` are further `a.b=value` settings; those of --set go over them. Of the parts
        `runs`, or of all for None, trusted Python code is named, since it is going to be run.
        Raises KilotuneError as `recipe_for` does.
        """
        from kilotune.recipe.functions import PARTS
        from kilotune.recipe.load import recipe_for

        runs = PARTS if runs is None else runs
        data = {
            "text": one_or_more(self.text), "label": self.label, "group": self.group,
            "format": self.format, "columns": self.column_of() or None, "images": self.images,
            "split": self.split,
            "keep": self.keep, "ignore": self.ignore, "task": self.task, "validation": self.val,
            "test": self.test, "train_on": self.train_on, "system": self.system,
        }  # fmt: skip
        recipe = recipe_for(
            source,
            data=data,
            model={"name": self.model, "chat_template": self.chat_template},
            unlabeled=self.unlabeled,
            preset=self.preset,
            overrides=[*overrides, *(self.settings or ())],
            trust_code=self.trust_code,
            runs=runs,
        )
        say_code(recipe, self.trust_code, runs)
        return recipe

    def column_of(self) -> dict[str, str | tuple[str, ...]]:
        """The columns that --column names for each field. Raises KilotuneError for other forms."""
        found: dict[str, list[str]] = {}
        for argument in self.columns or ():
            field, equals, column = argument.partition("=")
            if not (field and equals and column):
                raise KilotuneError(
                    f"cannot read --column {argument}", fix="Write it as --column prompt=question"
                )
            found.setdefault(field, []).append(column)
        return {field: one_or_more(columns) or "" for field, columns in found.items()}

    def named(self) -> dict[str, str | tuple[str, ...]]:
        """The columns that --text and --column name, by their fields."""
        text = one_or_more(self.text)
        return {**self.column_of(), **({"text": text} if text else {})}

    def reading(self) -> "Reading":
        """How files are read, for commands that make no recipe."""
        from kilotune.data.column_plan import Reading

        return Reading(
            self.format or "auto",
            self.column_of(),
            one_or_more(self.text),
            self.label,
            self.group,
            keep=tuple(self.keep or ()),
            ignore=tuple(self.ignore or ()),
            images=self.images,
        )


def one_or_more(columns: list[str] | None) -> str | tuple[str, ...] | None:
    """Columns as recipes have them: one by itself, several in their order."""
    if not columns:
        return None
    return columns[0] if len(columns) == 1 else tuple(columns)
