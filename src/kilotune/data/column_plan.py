"""How the rows of a file are to be read: which format they are in, and which columns its fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from kilotune.data.columns.joined import Columns, names_in
from kilotune.data.columns.usual import captions, derived, guessed, picture_column, with_companions
from kilotune.data.example import Task
from kilotune.data.files.table import Table
from kilotune.data.formats import FORMATS, SAMPLE_ROWS, Format, detect
from kilotune.data.natures import nature
from kilotune.errors import KilotuneError, shorten

# The option of the command line that names a field's column, where it has one of its own.
OPTIONS = ("text", "label")
# A column's name of so many words is a text.
PROSE_WORDS = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are to be read.

    `format` is a name of FORMATS, `columns` gives the file's columns for its fields (`text` and
    `label` are short for those two), several to be joined in their order; what is not given is
    detected. `keep` says which rows are read (`answer=accept`), `split` is a column that names the
    part of each row, and `ignore` are columns that are meant not to be read. `called` are the names
    to write before the texts of joined columns, where those are not their own. `images` is the
    folder that paths of images begin in, where that is not the file's.
    """

    format: str = "auto"
    columns: Mapping[str, Columns] = field(default_factory=dict)
    text: Columns | None = None
    label: str | None = None
    group: str | None = None
    task: Task | Literal["auto"] = "auto"
    keep: tuple[str, ...] = ()
    split: str | None = None
    ignore: tuple[str, ...] = ()
    called: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How the rows of one file are read.

    `form` is the format called `name`; `chosen` are those of the `columns` of its fields that a
    usual name alone would not find, `called` what joined ones are called, and `folder` is where
    images are.
    """

    name: str
    form: Format
    columns: Mapping[str, Columns]
    group: str | None
    folder: str
    chosen: Mapping[str, Columns]
    called: Mapping[str, str]

    @property
    def asks_of_pictures(self) -> bool:
        """Whether there are pictures with answers, and no question in the file."""
        return self.name == "prompt-completion" and "prompt" not in self.columns

    @property
    def answers(self) -> tuple[str, ...]:
        """The columns of answers, where those have their own."""
        fields = [name for name in self.form.answers if name in self.columns]
        return tuple(column for name in fields for column in names_in(self.columns[name]))


def named_columns(reading: Reading) -> dict[str, Columns]:
    """The columns that are named for fields; several of which there is one are that one."""
    short = zip(OPTIONS, (reading.text, reading.label), strict=True)
    given = {**reading.columns, **{name: column for name, column in short if column}}
    return {
        name: columns[0] if isinstance(columns, tuple) and len(columns) == 1 else columns
        for name, columns in given.items()
    }


def check_named(reading: Reading, table: Table) -> None:
    """Raise KilotuneError for a column to be ignored, or split by, that is not there."""
    for option, name in (
        ("--split", reading.split),
        *(("--ignore", name) for name in reading.ignore),
    ):
        if name is not None and name not in table.columns:
            raise KilotuneError(
                f"no column '{name}'; {_columns_of(table)}",
                where=str(table.path),
                fix=f"Name one of those with {option}",
            )


def plan_columns(
    table: Table, reading: Reading, given: Mapping[str, Columns], answered: bool
) -> ColumnPlan:
    """The format and columns of a file, with those `given` for fields; new rows need no answers.

    Raises KilotuneError where there is no such column, and where none can be told.
    """
    format, group = reading.format, reading.group
    if format not in {"auto", *FORMATS}:
        raise KilotuneError(
            f"no format '{format}'", fix=f"Choose one of: auto, {', '.join(FORMATS)}"
        )
    named = {**given, **({"group": group} if group is not None else {})}
    _check_columns([(f, n) for f, columns in named.items() for n in names_in(columns)], table)
    fields = {name for form in FORMATS.values() for name in form.fields}
    name = format
    if name == "auto" and set(given) <= fields:
        values = [row.values for row in table.rows[:SAMPLE_ROWS]]
        # The last format is the one whose missing columns are asked for.
        name = detect(table.columns, values, given, answered) or _nearest(given)
    elif name == "auto":
        name = "text-label"
    lacking = FORMATS[name].lacking(FORMATS[name].columns(table.columns, given), answered)
    paired: dict[str, Columns] = {}
    if format == "auto" and lacking:
        paired = captions(table, given) or derived(table, given)
    name = "prompt-completion" if paired else name
    form = FORMATS[name]
    _check_fields(form, given, table)
    columns = {**form.columns(table.columns, given), **paired}
    if answered and form.lacking(columns, answered):
        _refuse_others(table)
        columns |= guessed(table, columns) if name == "text-label" else {}
    if not {"text", "images"} & columns.keys() and (pictures := picture_column(table)):
        columns = {**columns, "images": pictures}
    _check_needs(form, columns, table, answered)
    usual = form.columns(table.columns, {})
    if answered:
        columns = with_companions(name, columns, given, table)
    chosen = {f: c for f, c in columns.items() if f not in given and usual.get(f) != c}
    folder = str(reading.images or table.path.parent)
    return ColumnPlan(name, form, columns, group, folder, chosen, reading.called)


def _refuse_others(table: Table) -> None:
    """Raise KilotuneError where the file is plainly something else, with what to do about it."""
    if not _has_data_for_names(table) and (other := nature(table)):
        raise KilotuneError(
            f"{other.what}; {_columns_of(table)}", where=str(table.path), fix=other.fix
        )


def _nearest(given: Mapping[str, Columns]) -> str:
    """The format to ask for more columns of: one that knows those given."""
    return next(
        (name for name in reversed(FORMATS) if set(given) <= set(FORMATS[name].fields)),
        "text-label",
    )


def _check_columns(named: Sequence[tuple[str, str]], table: Table) -> None:
    """Raise KilotuneError if any column is named for a field that is not there."""
    lacking = [(name, column) for name, column in named if column not in table.columns]
    if not lacking:
        return
    names = ", ".join(f"'{column}'" for _, column in lacking)
    raise KilotuneError(
        f"no column {names}; {_columns_of(table)}",
        where=str(table.path),
        fix=_remedy(lacking, table),
    )


def _remedy(lacking: Sequence[tuple[str, str]], table: Table) -> str:
    """What was probably meant by fields with columns that are not there."""
    fields = {field for form in FORMATS.values() for field in form.fields}
    swapped = [(n, column) for n, column in lacking if n in table.columns and column in fields]
    if swapped:
        options = " ".join(f"--column {column}={name}" for name, column in swapped)
        return f"The field comes first: {options}"
    near = [get_close_matches(column, table.columns, 1) for _, column in lacking]
    meant = [f"'{match[0]}'" for match in near if match]
    wanted = _how_to_name([name for name, _ in lacking])
    return (f"Did you mean {', '.join(meant)}? " if meant else "") + wanted


def _columns_of(table: Table) -> str:
    """The names of the columns; or, where those are texts and labels, that they are no names."""
    columns = f"the columns are {', '.join(map(shorten, table.columns))}"
    if not _has_data_for_names(table):
        return columns
    return f"{columns}: the first row seems to be data, where the names should be"


def _has_data_for_names(table: Table) -> bool:
    """Whether a name is as long as a text, or stands in its own column as a value."""
    values = [row.values for row in table.rows[:SAMPLE_ROWS]]
    return any(
        len(name.split()) >= PROSE_WORDS or any(row.get(name) == name for row in values)
        for name in table.columns
    )


def _check_fields(form: Format, given: Mapping[str, Columns], table: Table) -> None:
    unknown = [name for name in given if name not in form.fields]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise KilotuneError(
            f"{form.title} have no field {names}, but {', '.join(form.fields)}",
            where=str(table.path),
            fix="Name one of those, or another format with --format",
        )


def _check_needs(
    form: Format, columns: Mapping[str, Columns], table: Table, answered: bool
) -> None:
    if needs := form.lacking(columns, answered):
        headless = _has_data_for_names(table)
        raise KilotuneError(
            f"no column that looks like the {' or the '.join(needs)} of {form.title}; "
            f"{_columns_of(table)}",
            where=str(table.path),
            fix=f"Write the names above it, such as {','.join(form.needs)}"
            if headless
            else f"{_how_to_name(needs)}{_otherwise(form, needs)}; docs/data.md shows the formats",
        )
    every = [name for each in columns.values() for name in names_in(each)]
    twice = {name for name in every if every.count(name) > 1}
    both = [f for f, each in columns.items() if twice & set(names_in(each))]
    if both:
        raise KilotuneError(
            f"column '{next(iter(twice))}' cannot be both {' and '.join(both)}",
            where=str(table.path),
            fix=f"Name two columns. {_how_to_name(both)}",
        )


def _otherwise(form: Format, needs: Sequence[str]) -> str:
    """The fields of other formats, where nothing speaks for this one: it was only the last."""
    if form is not FORMATS["text-label"] or len(needs) < len(form.needs):
        return ""
    return (
        ". If these are no labels: --column prompt=NAME --column completion=NAME, or of "
        "conversations --column messages=NAME"
    )


def _how_to_name(names: Sequence[str]) -> str:
    options = ["--group" if name == "group" else f"--column {name}=NAME" for name in names]
    return f"Name {'one' if len(names) == 1 else 'them'} with {' '.join(options)}"
