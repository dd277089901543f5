"""What can be put right without asking anybody, with a line in a log for each change."""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ftfy

from kilotune.data.checks.characters import CONTROL, SOUTH_EAST, ZERO_WIDTH, utf8_read_as_gbk
from kilotune.data.checks.labels import commonest_spellings
from kilotune.data.checks.markup import CODE, HTML, TAGS
from kilotune.data.example import Example
from kilotune.data.finding import Finding
from kilotune.data.normalise import Dataset
from kilotune.data.table import Row
from kilotune.data.tasks import is_json
from kilotune.data.writers import check_writable, to_json, write_atomically, write_table
from kilotune.errors import KilotuneError

# Findings whose rows say nothing that could be learnt, or say it twice.
REMOVED = ("empty-text", "missing-label", "empty-answer", "missing-answer", "duplicate")

BREAKS = re.compile(r"<(?:br|hr)\s*/?>|</(?:p|div|li|tr|h[1-6])\s*>", re.IGNORECASE)
# Alone, closed, or with an attribute: prose such as `a <b and c> d` is no tag.
ANY_TAG = re.compile(rf"</?(?:{TAGS})\s*/?>|<(?:{TAGS})\s+[a-z-]+\s*=[^<>]*>", re.IGNORECASE)

Edit = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the row's id, the finding it answers, the field, its text before and after.

    `after` is None where the whole row was left out; `before` then is the row.
    """

    row: str
    code: str
    field: str
    before: str
    after: str | None


def repair_file(dataset: Dataset, findings: Iterable[Finding], out: Path) -> list[Change]:
    """Write `dataset` to `out` with what `findings` name repaired, and `out`.changes.jsonl.

    Columns and rows stay in the order and the format they were in; rows that could not be read
    are left out, their text in the log. Raises KilotuneError over an
    existing file, and for pictures whose paths would no longer lead to them.
    """
    log = check_repairable(out)
    table = dataset.table
    assert table is not None  # every Dataset that was read from a file has one
    home = table.path if table.path.is_dir() else table.path.parent
    nearby = any(i.data is None and not Path(i.source).is_absolute() for i in _images(dataset))
    if nearby and out.resolve().parent != home.resolve():
        raise KilotuneError(
            "the paths of the images would no longer lead to them",
            where=str(out),
            fix=f"Write it into {home}",
        )
    rows, changes = repair(table.rows, dataset.examples, findings, set(dataset.unused))
    changes += [
        Change(bad.id("data"), "unreadable-row", "", bad.text, None) for bad in table.unread
    ]
    write_table(out, table.columns, [row.values for row in rows])
    write_atomically(log, "".join(to_json(change, indent=None) + "\n" for change in changes))
    return changes


def check_repairable(out: Path) -> Path:
    """Where the log of changes beside `out` goes. Raises KilotuneError if one cannot be written."""
    log = out.with_name(f"{out.name}.changes.jsonl")
    for path in (out, log):
        check_writable(path)
    return log


def repair(
    rows: Sequence[Row],
    examples: Sequence[Example],
    findings: Iterable[Finding],
    unused: Set[str] = frozenset(),
) -> tuple[list[Row], list[Change]]:
    """`rows` with what `findings` name repaired, and every change that this took.

    Text that was decoded wrongly is decoded rightly (ftfy), control characters go, HTML becomes
    plain text, spellings of a label become the commonest one; rows without text or answer and
    repeats (case, width and spaces aside) are left out. Columns that are `unused` stay as they
    are, and so does HTML when most answers are written in it. Whatever needs a decision
    (conflicts, near duplicates, leakage, roles, pictures, JSON) stays as it is.
    """
    named = {finding.code: set(finding.rows) for finding in findings}
    edits = {**TEXT_EDITS, "label-variants": respelling(examples)}
    if 2 * sum(bool(HTML.search(e.answer or "")) for e in examples) > len(examples):
        del edits["html-remains"]
    asked = {example.id: example.text for example in examples}
    kept, changes = [], []
    for row in rows:
        name = row.id("data")
        removed = next((code for code in REMOVED if name in named.get(code, ())), None)
        if removed:
            changes.append(Change(name, removed, "", to_json(row.values, indent=None), None))
            continue
        values: dict[str, Any] = dict(row.values)
        for code, edit in edits.items():
            if name not in named.get(code, ()):
                continue
            for column, value in row.values.items():
                label = code == "label-variants"
                if column in unused or (label and value == asked.get(name)):
                    continue
                values[column], made = _edited(values[column], edit, column)
                changes += [Change(name, code, *change) for change in made]
        kept.append(replace(row, values=values))
    return kept, changes


def respelling(examples: Iterable[Example]) -> Edit:
    """Makes of each spelling of a label the commonest one."""
    usual = commonest_spellings(examples)
    return lambda text: usual.get(text.strip(), text)


def plain_text(text: str) -> str:
    """HTML as plain text: breaks as lines, other tags gone, entities read. Code stays as it is."""
    if CODE.search(text) or not HTML.search(text):
        return text
    lines = ANY_TAG.sub("", BREAKS.sub("\n", text))
    return html.unescape(lines).replace("\xa0", " ").strip()


def without_control(text: str) -> str:
    """Text without control characters and invisible signs; tabs and line ends stay."""
    text = text.replace("\u2028", "\n").replace("\u2029", "\n")
    if not SOUTH_EAST.search(text):
        text = text.replace(ZERO_WIDTH, "")
    return CONTROL.sub("", text)


def redecoded(text: str) -> str:
    """Text that was decoded wrongly, decoded rightly where that can be told."""
    fixed: str = ftfy.fix_encoding(text)
    if fixed != text:
        return fixed
    if not utf8_read_as_gbk(text):  # short Chinese words can happen to be both
        return text
    try:
        return text.encode("gbk").decode("utf-8")
    except UnicodeError:  # cut off in the middle of a character
        return text


TEXT_EDITS: Mapping[str, Edit] = {
    "mojibake": redecoded,
    "control-characters": without_control,
    "html-remains": plain_text,
}


def _edited(value: Any, edit: Edit, field: str) -> tuple[Any, list[tuple[str, str, str]]]:
    """`value` with every text in it edited, and (field, before, after) of those that changed."""
    if isinstance(value, str):
        after = _edited_json(value, edit) if is_json(value) else edit(value)
        return after, [(field, value, after)] if after != value else []
    if not isinstance(value, dict | list):
        return value, []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    done = {key: _edited(item, edit, f"{field}.{key}".lstrip(".")) for key, item in items}
    changes = [change for _, made in done.values() for change in made]
    if isinstance(value, dict):
        return {key: item for key, (item, _) in done.items()}, changes
    return [item for item, _ in done.values()], changes


def _edited_json(text: str, edit: Edit) -> str:
    """JSON with the texts inside it edited: its own quotes and escapes are no text."""
    value, changes = _edited(json.loads(text), edit, "")
    return json.dumps(value, ensure_ascii=False) if changes else text


def _images(dataset: Dataset) -> list[Any]:
    return [image for example in dataset.examples for image in example.images]
