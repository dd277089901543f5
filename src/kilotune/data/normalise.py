"""Rows to Examples: whatever the columns are called, one form comes out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from kilotune.data.cells import CAPTION_PROMPT, Cells, is_structured
from kilotune.data.column_plan import (
    ColumnPlan,
    Reading,
    check_named,
    named_columns,
    plan_columns,
)
from kilotune.data.columns.joined import Columns, names_in, shown
from kilotune.data.columns.mixed import mixed_labels, timestamps
from kilotune.data.columns.row_filter import kept_rows, row_condition
from kilotune.data.columns.unread import FileReader, unread_columns
from kilotune.data.example import Example, Origin, Task
from kilotune.data.files.readers import Row, Table, read_table
from kilotune.data.finding import Finding, finding, stop_on_errors
from kilotune.data.formats import FORMATS
from kilotune.data.images.references import place, placeholders
from kilotune.data.label_tools import as_plain_rows, with_paths
from kilotune.data.row_faults import Faults, RowError
from kilotune.data.tasks import JSON_SHARE, detect_task, several_answers

# The fields of all formats that hold answers.
ANSWERS = tuple(dict.fromkeys(name for form in FORMATS.values() for name in form.answers))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file as Examples: the format it was in, the task it sets, and what reading it found.

    `format` is a name of FORMATS (several in a mixed folder), `why` says what the task was told
    from, `unused` are the columns that nothing was read from, `table` holds the rows as they
    stand in the file, `answers` are its columns of answers, where those have their own, and
    `chosen` those of fields that a usual name alone would not find.
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
    chosen: Mapping[str, Columns] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The format in words, as printed."""
        return ", ".join(FORMATS[name].title for name in self.format.split(", "))


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
    judged: bool = True,
) -> Dataset:
    """Read a file, or a folder of files, into Examples.

    `source` begins their ids (`data:2` is line 2 of the file). A text or label that is empty
    becomes an empty text or a label of None, for the checks to report. Without `answered` the file
    may lack the answers' column; a `table` that is given is taken for the file's. Columns that are
    not read are judged by what they hold, if `judged` and `answered`. Raises KilotuneError for a
    file that cannot be read or has no such columns.
    """
    reading = reading or Reading()
    table, given = _prepared(table or read_table(Path(path), partial=True), reading, answered)
    rows = kept_rows(table, reading.keep) if reading.keep and answered else table.rows
    faults = Faults()
    examples: list[Example] = []
    plans: list[ColumnPlan] = []
    for part in _files(replace(table, rows=rows)):
        plan = plan_columns(part, reading, given, answered)
        examples += _examples(part.rows, plan, table, source, faults)
        plans.append(plan)
    labelled = all(plan.name == "text-label" for plan in plans)
    detected, why = detect_task(examples, labelled)
    if reading.task != "auto":
        detected, why = reading.task, "as asked for"
    if detected == "classify":
        examples = [_with_label(example) for example in examples]
    found = table.faults(source) + faults.findings() + several_answers(examples, detected)
    chosen = plans[0].chosen if len(plans) == 1 else {}
    if len(rows) < len(table.rows):
        found.append(finding("rows-kept", kept=len(rows), of=len(table.rows)))
    if any(plan.asks_of_pictures for plan in plans):
        found.append(finding("caption-prompt", prompt=CAPTION_PROMPT))
    found += [finding("columns-found", field=f, columns=shown(c)) for f, c in chosen.items()]
    unused = _unused(table, plans, reading)
    if answered:
        found += _of_read(plans, rows, detected)
    if judged and answered:
        reader = FileReader(plans[0].name, plans[0].columns, detected)
        wanted = [name for name in unused if name not in reading.ignore]
        found += unread_columns(wanted, rows, reader, source)
    return Dataset(
        table.path,
        ", ".join(dict.fromkeys(plan.name for plan in plans)),
        detected,
        tuple(examples),
        (*table.findings, *found),
        why,
        unused,
        table,
        answers=frozenset(name for plan in plans for name in plan.answers),
        chosen=chosen,
    )


def _prepared(table: Table, reading: Reading, answered: bool) -> tuple[Table, dict[str, Columns]]:
    """The table in plain columns, and the columns that are given for fields.

    Raises KilotuneError for columns that are named for anything else and are not there.
    """
    given = named_columns(reading)
    named = [name for columns in given.values() for name in names_in(columns)]
    if reading.format == "auto" and not set(named) & set(table.columns):
        table = as_plain_rows(table)
    table = with_paths(table, named)
    if not answered:
        given = {f: c for f, c in given.items() if f not in ANSWERS or c in table.columns}
    check_named(reading, table)
    return table, given


def _of_read(plans: Sequence[ColumnPlan], rows: Sequence[Row], task: Task) -> list[Finding]:
    """What is odd about the columns that are read."""
    flat = [f for f in ("text", "prompt", "query", "instruction", *ANSWERS) if len(plans) == 1]
    columns = {f: names_in(plans[0].columns[f]) for f in flat if f in plans[0].columns}
    found = timestamps([name for names in columns.values() for name in names], rows)
    if task == "classify":
        labels = [name for f in ANSWERS for name in columns.get(f, ())]
        found += [said for name in labels for said in mixed_labels(name, rows)]
    return found


def _unused(table: Table, plans: Sequence[ColumnPlan], reading: Reading) -> tuple[str, ...]:
    """The columns that nothing is read from, nor told by."""
    read = {n for plan in plans for columns in plan.columns.values() for n in names_in(columns)}
    told = {reading.group, reading.split, *(row_condition(each).column for each in reading.keep)}
    inside = {name.partition(".")[0] for name in read}
    return tuple(name for name in table.columns if name not in read | told | inside)


def _files(table: Table) -> Iterable[Table]:
    """The table of each file: in a folder, files may be in different formats."""
    for file, rows in groupby(table.rows, key=lambda row: row.file):
        if not file:
            yield table
            return
        part = tuple(rows)
        columns = tuple(dict.fromkeys(name for row in part for name in row.values))
        yield replace(table, path=table.path / file, columns=columns, rows=part)


def _examples(
    rows: Sequence[Row], plan: ColumnPlan, table: Table, source: str, faults: Faults
) -> list[Example]:
    examples: list[Example] = []
    uneven: list[tuple[str, bool]] = []
    waiting: list[str] = []
    placed = False
    takes_images = plan.name == "llava" or "images" in plan.columns
    structured = _has_structured_answers(rows, plan)
    for row in rows:
        cells = Cells(row.values, plan.columns, plan.folder, plan.called, structured)
        name = row.id(source)
        try:
            messages = plan.form.read(cells)
            images = cells.images()
            weight = cells.weight()
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
        said = [message.trained for message in messages if message.role == "assistant"]
        if weight == 0 or (said and not any(said)):
            faults.add("no-weight", name)
            continue
        examples.append(Example(name, tuple(messages), origin, None, group, weight))
    # A file that never says where its images go means them to go before the text.
    for name, has_placeholders in uneven:
        if has_placeholders or placed:
            faults.add("image-count", name)
    # In a file without images it is a word like any.
    if waiting and any(example.images for example in examples):
        for name in waiting:
            faults.add("image-word", name)
    return examples


def _has_structured_answers(rows: Sequence[Row], plan: ColumnPlan) -> bool:
    """Whether answers are JSON values of the file's own, so that an empty one is one too."""
    columns = [name for f in plan.form.answers for name in names_in(plan.columns.get(f, ()))]
    cells = [row.values[name] for row in rows for name in columns if row.values.get(name)]
    return bool(cells) and sum(map(is_structured, cells)) >= JSON_SHARE * len(cells)


def _group(row: Row, column: str | None) -> str | None:
    value = row.values.get(column) if column else None
    return None if value is None or value == "" else str(value)


def _with_label(example: Example) -> Example:
    return replace(example, label=(example.answer or "").strip() or None)


def without_answer(example: Example) -> Example:
    """The example as it is asked: its last answer and its label taken away."""
    return replace(example, messages=example.prompt, label=None)
