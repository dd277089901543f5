"""Rows to Examples: whatever the columns are called, one form comes out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Literal

from kilotune.data.cells import Cells
from kilotune.data.example import Example, Origin, Task
from kilotune.data.files.readers import Row, Table, read_table
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.data.formats import FORMATS, SAMPLE_ROWS, Format, detect
from kilotune.data.images.references import place, placeholders
from kilotune.data.row_faults import Faults, RowError
from kilotune.data.tasks import detect_task, several_answers
from kilotune.errors import KilotuneError, shorten

# The option of the command line that names a field's column, where it has one of its own.
OPTIONS = ("text", "label")
# A column's name of so many words is a text.
PROSE_WORDS = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file as Examples: the format it was in, the task it sets, and what reading it found.

    `format` is a name of FORMATS (several in a mixed folder), `why` says what the task was told
    from, `unused` are the columns that nothing was read from, `table` holds the rows as they
    stand in the file, and `answers` are its columns of answers, where those have their own.
    Rows that could not be read into an Example are named by `findings` of severity error.
    """

    path: Path
    format: str
    task: Task
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]
    why: str = ""
    unused: tuple[str, ...] = ()
    table: Table | None = field(default=None, repr=False)
    answers: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The format in words, as printed."""
        return ", ".join(FORMATS[name].title for name in self.format.split(", "))


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the rows of one file are read: the format, its columns, and where images are."""

    name: str
    form: Format
    columns: Mapping[str, str]
    group: str | None
    folder: str


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are to be read.

    `format` is a name of FORMATS, `columns` gives the file's columns for its fields (`text` and
    `label` are short for those two); what is not given is detected.
    """

    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    label: str | None = None
    group: str | None = None
    task: Task | Literal["auto"] = "auto"


def load_examples(
    path: str | Path, *, text: str | None = None, label: str | None = None
) -> list[Example]:
    """The Examples of `load_dataset`. Raises KilotuneError where a row could not be read."""
    dataset = load_dataset(path, Reading(text=text, label=label))
    stop_on_errors(dataset.findings, str(path))
    return list(dataset.examples)


def load_dataset(
    path: str | Path,
    reading: Reading | None = None,
    *,
    source: str = "data",
    answered: bool = True,
    table: Table | None = None,
) -> Dataset:
    """Read a file, or a folder of files, into Examples.

    `source` begins their ids (`data:2` is line 2 of the file). A text or label that is empty
    becomes an empty text or a label of None, for the checks to report. Without `answered` the file
    may lack the answers' column; a `table` that is given is taken for the file's. Raises
    KilotuneError for a file that cannot be read or has no such columns.
    """
    reading = reading or Reading()
    table = table or read_table(Path(path), partial=True)
    short = zip(OPTIONS, (reading.text, reading.label), strict=True)
    given = {**reading.columns, **{name: column for name, column in short if column}}
    if not answered:
        answers = {name for form in FORMATS.values() for name in form.answers}
        given = {f: c for f, c in given.items() if f not in answers or c in table.columns}
    faults = Faults()
    examples: list[Example] = []
    plans: list[_Plan] = []
    for part in _files(table):
        plan = _plan(part, reading.format, given, reading.group, answered)
        examples += _examples(part.rows, plan, table, source, faults)
        plans.append(plan)
    labelled = all(plan.name == "text-label" for plan in plans)
    detected, why = detect_task(examples, labelled)
    if reading.task != "auto":
        detected, why = reading.task, "as asked for"
    if detected == "classify":
        examples = [_with_label(example) for example in examples]
    found = table.faults(source) + faults.findings() + several_answers(examples, detected)
    used = {name for plan in plans for name in (*plan.columns.values(), plan.group)}
    return Dataset(
        table.path,
        ", ".join(dict.fromkeys(plan.name for plan in plans)),
        detected,
        tuple(examples),
        (*table.findings, *found),
        why,
        tuple(name for name in table.columns if name not in used),
        table,
        answers=frozenset(
            plan.columns[name]
            for plan in plans
            for name in plan.form.answers
            if name in plan.columns
        ),
    )


def _files(table: Table) -> Iterable[Table]:
    """The table of each file: in a folder, files may be in different formats."""
    for file, rows in groupby(table.rows, key=lambda row: row.file):
        if not file:
            yield table
            return
        part = tuple(rows)
        columns = tuple(dict.fromkeys(name for row in part for name in row.values))
        yield replace(table, path=table.path / file, columns=columns, rows=part)


def _plan(
    table: Table, format: str, given: Mapping[str, str], group: str | None, answered: bool
) -> _Plan:
    if format not in {"auto", *FORMATS}:
        raise KilotuneError(
            f"no format '{format}'", fix=f"Choose one of: auto, {', '.join(FORMATS)}"
        )
    named = {**given, **({"group": group} if group is not None else {})}
    _check_columns({name: c for name, c in named.items() if c not in table.columns}, table)
    fields = {name for form in FORMATS.values() for name in form.fields}
    name = format
    if name == "auto" and set(given) <= fields:
        values = [row.values for row in table.rows[:SAMPLE_ROWS]]
        # The last format is the one whose missing columns are asked for.
        name = detect(table.columns, values, given, answered) or _nearest(given)
    elif name == "auto":
        name = "text-label"
    form = FORMATS[name]
    _check_fields(form, given, table)
    columns = form.columns(table.columns, given)
    _check_needs(form, columns, table, answered)
    return _Plan(name, form, columns, group, str(table.path.parent))


def _nearest(given: Mapping[str, str]) -> str:
    """The format to ask for more columns of: one that knows those given."""
    return next(
        (name for name in reversed(FORMATS) if set(given) <= set(FORMATS[name].fields)),
        "text-label",
    )


def _check_columns(lacking: Mapping[str, str], table: Table) -> None:
    """Raise KilotuneError if any column is named that is not there."""
    if not lacking:
        return
    names = ", ".join(f"'{column}'" for column in lacking.values())
    raise KilotuneError(
        f"no column {names}; {_columns_of(table)}",
        where=str(table.path),
        fix=_remedy(lacking, table),
    )


def _remedy(lacking: Mapping[str, str], table: Table) -> str:
    """What was probably meant by fields with columns that are not there."""
    fields = {field for form in FORMATS.values() for field in form.fields}
    swapped = [n for n, column in lacking.items() if n in table.columns and column in fields]
    if swapped:
        options = " ".join(f"--column {lacking[name]}={name}" for name in swapped)
        return f"The field comes first: {options}"
    near = [get_close_matches(column, table.columns, 1) for column in lacking.values()]
    meant = [f"'{match[0]}'" for match in near if match]
    return (f"Did you mean {', '.join(meant)}? " if meant else "") + _how_to_name(list(lacking))


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


def _check_fields(form: Format, given: Mapping[str, str], table: Table) -> None:
    unknown = [name for name in given if name not in form.fields]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown)
        raise KilotuneError(
            f"{form.title} have no field {names}, but {', '.join(form.fields)}",
            where=str(table.path),
            fix="Name one of those, or another format with --format",
        )


def _check_needs(form: Format, columns: Mapping[str, str], table: Table, answered: bool) -> None:
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
    both = [f for f in columns if list(columns.values()).count(columns[f]) > 1]
    if both:
        raise KilotuneError(
            f"column '{columns[both[0]]}' cannot be both {' and '.join(both)}",
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


def _examples(
    rows: Sequence[Row], plan: _Plan, table: Table, source: str, faults: Faults
) -> list[Example]:
    examples: list[Example] = []
    uneven: list[tuple[str, bool]] = []
    waiting: list[str] = []
    placed = False
    takes_images = plan.name == "llava" or "images" in plan.columns
    for row in rows:
        cells = Cells(row.values, plan.columns, plan.folder)
        name = row.id(source)
        try:
            messages = plan.form.read(cells)
            images = cells.images()
        except RowError as fault:
            faults.add(fault.code, name, fault.shown)
            continue
        if images or takes_images or cells.slots:
            wanted = placeholders(messages)
            placed = placed or wanted > 0
            if wanted != len(images):
                uneven.append((name, wanted > 0))
            messages = place(messages, images)
        elif placeholders(message for message in messages if message.role == "user"):
            waiting.append(name)
        for code in cells.said:
            faults.add(code, name)
        origin = Origin(row.file or table.path.name, row.line)
        group = _group(row, plan.group)
        if plan.group and group is None:
            faults.add("missing-group", name)
        examples.append(Example(name, tuple(messages), origin, None, group))
    # A file that never says where its images go means them to go before the text.
    for name, has_placeholders in uneven:
        if has_placeholders or placed:
            faults.add("image-count", name)
    # In a file without images it is a word like any.
    if waiting and any(example.images for example in examples):
        for name in waiting:
            faults.add("image-word", name)
    return examples


def _group(row: Row, column: str | None) -> str | None:
    value = row.values.get(column) if column else None
    return None if value is None or value == "" else str(value)


def _with_label(example: Example) -> Example:
    return replace(example, label=(example.answer or "").strip() or None)


def without_answer(example: Example) -> Example:
    """The example as it is asked: its last answer and its label taken away."""
    return replace(example, messages=example.prompt, label=None)
