"""Rows to Examples: whatever the columns are called, one form comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kilotune.data.example import Example, Message, Origin, Task
from kilotune.data.finding import Finding
from kilotune.data.readers import Row, Table, read_table
from kilotune.errors import KilotuneError

# Names that people give these columns, the likeliest first.
TEXT_COLUMNS = ("text", "sentence", "content", "review", "comment", "input", "question", "title")
LABEL_COLUMNS = ("label", "labels", "category", "class", "target", "sentiment", "topic", "intent")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file as Examples: the format it was in, the task it sets, and what reading it found.

    Rows that could not be read into an Example are named by `findings` of severity error.
    """

    path: Path
    format: str
    task: Task
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]


def load_examples(
    path: str | Path, *, text: str | None = None, label: str | None = None
) -> list[Example]:
    """The Examples of `load_dataset`."""
    return list(load_dataset(path, text=text, label=label).examples)


def load_dataset(
    path: str | Path,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    text: str | None = None,
    label: str | None = None,
    group: str | None = None,
    task: Task | Literal["auto"] = "auto",
    source: str = "data",
) -> Dataset:
    """Read a labelled file into Examples.

    `text` and `label` name its columns; without them the usual names are looked for. `source`
    begins the ids (`data:2` is line 2 of the file). A field that is empty or missing becomes an
    empty text or a label of None, for the checks to report. Raises KilotuneError for a file that
    cannot be read or has no such columns.
    """
    table = read_table(Path(path))
    text_column = find_column(table, text, TEXT_COLUMNS, "text")
    label_column = find_column(table, label, LABEL_COLUMNS, "label")
    if text_column == label_column:
        raise KilotuneError(
            f"column '{text_column}' cannot be both text and label",
            where=str(path),
            fix="Name two columns with --text and --label",
        )
    examples = [
        labelled_example(row, text_column, label_column, table, source) for row in table.rows
    ]
    return Dataset(
        Path(path), "text and label columns", "classify", tuple(examples), table.findings
    )


def find_column(table: Table, given: str | None, usual: tuple[str, ...], what: str) -> str:
    """The column called `given`, else the first of the `usual` names the table has."""
    by_name = {name.casefold(): name for name in reversed(table.columns)}
    if given is not None:
        if given in table.columns:
            return given
        problem = f"no column '{given}'"
    else:
        found = next((by_name[name] for name in usual if name in by_name), None)
        if found is not None:
            return found
        problem = f"no column that looks like the {what}"
    raise KilotuneError(
        f"{problem}; the columns are {', '.join(table.columns)}",
        where=str(table.path),
        fix=f"Name one with --{what}",
    )


def labelled_example(
    row: Row, text_column: str, label_column: str, table: Table, source: str
) -> Example:
    """One row of a text/label table as a conversation of one question and its answer."""
    label = as_text(row.values.get(label_column)) or None
    messages = [Message("user", as_text(row.values.get(text_column)))]
    if label is not None:
        messages.append(Message("assistant", label))
    return Example(
        id=f"{source}:{row.line}",
        messages=tuple(messages),
        origin=Origin(table.path.name, row.line),
        label=label,
    )


def as_text(value: Any) -> str:
    """A cell as text: numbers as they are written, nothing for a missing or nested value."""
    return str(value).strip() if isinstance(value, str | int | float) else ""
