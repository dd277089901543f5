"""What can be put right without asking anybody, with a line in a log for each change."""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ftfy

from kilotune.data.checks import ROW_CHECKS_OF_TASK, Check
from kilotune.data.checks.characters import (
    CONTROL,
    SOUTH_EAST,
    ZERO_WIDTH,
    control_characters,
    gbk_read_as_latin,
    misread,
    mojibake,
    utf8_read_as_gbk,
)
from kilotune.data.checks.conversation import empty_text
from kilotune.data.checks.duplicates import exact_repeats
from kilotune.data.checks.labels import commonest_spellings, label_variants
from kilotune.data.checks.markup import CODE, HTML, TAGS, html_remains
from kilotune.data.column_plan import Reading
from kilotune.data.example import Example
from kilotune.data.files import claims
from kilotune.data.files.table import Row, Table
from kilotune.data.files.writers import check_writable, remove, table_bytes, to_json, write_together
from kilotune.data.finding import Finding
from kilotune.data.images.copies import Copy, image_folder
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.data.tasks import is_json
from kilotune.data.turns import is_turn, role_of
from kilotune.errors import KilotuneError

# Every check of text that can be repaired; ROW_CHECKS_OF_TASK has those of answers.
TEXT_CHECKS: tuple[Check, ...] = (empty_text, mojibake, control_characters, html_remains)

# Findings whose rows say nothing that could be learnt, or say it twice.
REMOVED = ("empty-text", "missing-label", "empty-answer", "missing-answer", "duplicate")

BREAKS = re.compile(r"<(?:br|hr)\s*/?>|</(?:p|div|li|tr|h[1-6])\s*>", re.IGNORECASE)
# Alone, closed, or with an attribute: prose such as `a <b and c> d` is no tag.
ANY_TAG = re.compile(rf"</?(?:{TAGS})\s*/?>|<(?:{TAGS})\s+[a-z-]+\s*=[^<>]*>", re.IGNORECASE)

Edit = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Repair:
    """One change: the row's id, the finding it answers, the field, its text before and after.

    `after` is None where the whole row was left out; `before` then is the row.
    """

    row: str
    code: str
    field: str
    before: str
    after: str | None


def repair_file(reading: Reading, path: Path, out: Path) -> list[Repair]:
    """Write the file at `path` to `out`, all repaired that can be, and `out`.changes.jsonl.

    Columns and rows stay in the order and the format they were in. Paths of images are written
    as they lead from `out`'s folder, and images that stand in the file itself become files in
    `out`.images, unless `out` is Parquet too. Rows that could not be read are left out, their text
    in the log. Raises KilotuneError over an existing file, and where nothing would be left.
    """
    log, pictures = _log(out), image_folder(out)
    with claims.claimed(out, log, pictures, check=_check_new):
        rows, columns, changes, images = _repaired(reading, path, out)
        files = {out.parent / name: raw for name, raw in images.items()}
        files[log] = "".join(to_json(change, indent=None) + "\n" for change in changes).encode()
        files[out] = table_bytes(out, columns, [row.values for row in rows])
        new = bool(images) and not pictures.exists()
        try:
            if images:
                pictures.mkdir(exist_ok=True)
            write_together(files)
        except BaseException:
            if new:
                remove(pictures)
            raise
    return changes


def _repaired(
    reading: Reading, path: Path, out: Path
) -> tuple[list[Row], Sequence[str], list[Repair], dict[str, bytes]]:
    """The rows and columns of a copy at `out`, what was changed, and the images to go with it."""
    dataset = load_dataset(path, reading)
    changes = [
        Repair(bad.id("data"), "unreadable-row", "", bad.text, None)
        for bad in _table(dataset).unread
    ]
    # What is repaired can show what else is: labels spelt in one way make rows repeats.
    while made := repair(dataset):
        rows, done = made
        changes += done
        if not rows:
            raise KilotuneError(
                "every row would be left out", where=str(path), fix="Look at what check says of it"
            )
        left = replace(_table(dataset), rows=tuple(rows), unread=())
        dataset = load_dataset(path, reading, table=left)
    images = Copy(out)
    rows = images.rows(dataset)
    changes += [Repair(row, "image-moved", *change) for row, *change in images.moved]
    return rows, _table(dataset).columns, changes, images.files


def check_repairable(out: Path) -> None:
    """Raise KilotuneError if `out`, or what is written beside it, could not be written."""
    claims.check_new(out, _log(out), image_folder(out), check=_check_new)


def _log(out: Path) -> Path:
    return out.with_name(f"{out.name}.changes.jsonl")


def _check_new(path: Path) -> None:
    if not path.name.endswith(".images"):
        check_writable(path)
    elif path.exists():
        raise KilotuneError(
            "the folder exists and is left as it is", where=str(path), fix="Choose another name"
        )


def _table(dataset: Dataset) -> Table:
    assert dataset.table is not None  # every Dataset that was read from a file has one
    return dataset.table


def repair(dataset: Dataset) -> tuple[list[Row], list[Repair]] | None:
    """The rows with what can be repaired at once repaired, and every change; None for no change.

    Text that was decoded wrongly is decoded rightly (ftfy), control characters go, HTML becomes
    plain text, spellings of a label become the commonest one; what follows the last answer of a
    conversation is cut off; rows without text or answer and exact repeats are left out. Columns
    that nothing is read from stay as they are, and so does HTML when most answers are written in
    it. Whatever needs a decision (conflicts, near duplicates, leakage, roles, pictures, JSON) stays
    as it is.
    """
    examples = dataset.examples
    named = {finding.code: set(finding.rows) for finding in repairable(dataset)}
    edits = dict(TEXT_EDITS)
    if 2 * sum(bool(HTML.search(e.answer or "")) for e in examples) > len(examples):
        del edits["html-remains"]
    respell = respelling(examples)
    kept, changes = [], []
    for row in _table(dataset).rows:
        name = row.id("data")
        removed = next((code for code in REMOVED if name in named.get(code, ())), None)
        if removed == "missing-answer" and (cut := _answered(row)):
            values, column, tail = cut
            changes.append(Repair(name, removed, column, to_json(_shown(tail), indent=None), ""))
            kept.append(replace(row, values=values))
            continue
        if removed:
            before = to_json(_shown(row.values), indent=None)
            changes.append(Repair(name, removed, "", before, None))
            continue
        values = dict(row.values)
        for column in row.values:
            if column in dataset.unused:
                continue
            for code, edit in edits.items():
                if name in named.get(code, ()):
                    values[column], made = _edited(values[column], edit, column)
                    changes += [Repair(name, code, *change) for change in made]
            if name in named.get("label-variants", ()):
                values[column], made = _respelt(values[column], respell, column, dataset.answers)
                changes += [Repair(name, "label-variants", *change) for change in made]
        kept.append(replace(row, values=values))
    return (kept, changes) if changes else None


def repairable(dataset: Dataset) -> list[Finding]:
    """The findings of the codes that `repair` knows."""
    checks = [*TEXT_CHECKS, *ROW_CHECKS_OF_TASK[dataset.task], exact_repeats]
    if dataset.task == "classify":
        checks.append(label_variants)
    return [finding for check in checks for finding in check(dataset.examples)]


def _answered(row: Row) -> tuple[dict[str, Any], str, list[Any]] | None:
    """A row without the turns behind its last answer, their column, and them; None for none."""
    for column, value in row.values.items():
        turns = json.loads(value) if isinstance(value, str) and is_json(value) else value
        if not isinstance(turns, list) or not all(map(is_turn, turns)):
            continue
        said = [place for place, turn in enumerate(turns) if role_of(turn) == "assistant"]
        if said and said[-1] > 0 and said[-1] + 1 < len(turns):
            kept, tail = turns[: said[-1] + 1], turns[said[-1] + 1 :]
            written = kept if turns is value else json.dumps(kept, ensure_ascii=False)
            return {**row.values, column: written}, column, tail
    return None


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
    """Text that was decoded wrongly, decoded rightly where that can be told.

    What would still look wrong afterwards stays as it is: half a repair hides what it was.
    """
    if (chinese := gbk_read_as_latin(text)) is not None:
        return chinese
    fixed: str = ftfy.fix_encoding(text)
    if fixed != text:
        return text if misread(fixed) else fixed
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


def _respelt(
    value: Any, respell: Edit, column: str, answers: Set[str]
) -> tuple[Any, list[tuple[str, str, str]]]:
    """A label spelt as it should be: in a column of answers, or in what an assistant says."""
    if column in answers:
        return _edited(value, respell, column)
    if answers:
        return value, []
    if isinstance(value, str) and is_json(value):
        turns, changes = _respelt(json.loads(value), respell, column, answers)
        return (json.dumps(turns, ensure_ascii=False) if changes else value), changes
    if not isinstance(value, list):
        return value, []
    turns, changes = [], []
    for place, turn in enumerate(value):
        if isinstance(turn, dict) and role_of(turn) == "assistant":
            turn, made = _edited(turn, respell, f"{column}.{place}")
            changes += made
        turns.append(turn)
    return turns, changes


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


def _shown(value: Any) -> Any:
    """A value as the log shows it: without the bytes of images."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
