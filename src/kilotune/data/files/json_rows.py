"""JSON and JSON Lines to rows."""

import json
import re
from dataclasses import replace
from typing import Any

from kilotune.data.files.encodings import decode
from kilotune.data.files.table import Read, Row, Unread
from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError

# An escape that is half a character, unless its other half follows: then it is a whole one.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Under these names an object's list holds turns, and the object is one row.
TURNS = ("messages", "conversations")
NO_OBJECT = "not an object"


def parse(text: str) -> Any:
    """JSON, strictly: no key twice, no half characters, no nesting past what Python can hold.

    Raises ValueError with the reason.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
        whole = not SURROGATE.search(text) or _encodable(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not whole:
        raise ValueError("half of a surrogate pair")
    return value


def _encodable(value: Any) -> bool:
    """Whether every text in `value` can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} twice")
    return values


def read_json_lines(raw: bytes, where: str) -> Read:
    """One JSON object a line; or a file that is one JSON document after all, which is said."""
    text, findings = decode(raw, where)
    read = replace(_lines(text), findings=findings)
    if not read.unread:
        return read
    try:
        content = parse(text)
    except ValueError:
        return read
    items, note = _items(content, where)
    return _objects(items, [*findings, finding("json-document"), *note])


def _lines(text: str) -> Read:
    rows: list[Row] = []
    bad: list[Unread] = []
    # Only "\n" ends a record: str.splitlines would also cut at separators inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            values = parse(line)
        except ValueError as error:
            bad.append(Unread(number, _reason(error), line, "Write one JSON object a line"))
            continue
        if isinstance(values, dict):
            rows.append(Row(number, values))
        else:
            bad.append(Unread(number, NO_OBJECT, line, "Write one JSON object a line"))
    return Read(rows, [], bad)


def _reason(error: ValueError) -> str:
    """The reason in words."""
    if isinstance(error, json.JSONDecodeError):
        return "not valid JSON"
    digits = "integer string conversion" in str(error)
    return "a number of too many digits" if digits else str(error)


def read_json(raw: bytes, where: str) -> Read:
    """A list of objects, or an object that holds one such list; rows are its items, from 1."""
    text, findings = decode(raw, where)
    try:
        content = parse(text)
    except ValueError as error:
        if _is_json_lines(text, error):
            return replace(_lines(text), findings=[*findings, finding("json-lines")])
        line = getattr(error, "lineno", None)
        why = "" if line else f" ({_reason(error)})"
        raise KilotuneError(
            f"not valid JSON{why}",
            where=f"{where}:{line}" if line else where,
            fix="Check commas and quotes there" if line else "Correct it there",
        ) from error
    items, note = _items(content, where)
    return _objects(items, findings + note)


def _objects(items: list[Any], findings: list[Finding]) -> Read:
    numbered = list(enumerate(items, 1))
    rows = [Row(number, item) for number, item in numbered if isinstance(item, dict)]
    fix = 'Write the list as [{"text": …, "label": …}, …]'
    bad = [
        Unread(number, NO_OBJECT, json.dumps(item, ensure_ascii=False), fix)
        for number, item in numbered
        if not isinstance(item, dict)
    ]
    return Read(rows, findings, bad)


def _is_json_lines(text: str, error: ValueError) -> bool:
    if not str(error).startswith("Extra data"):
        return False
    try:
        return isinstance(parse(text.lstrip().partition("\n")[0]), dict)
    except ValueError:
        return False


def _items(content: Any, where: str) -> tuple[list[Any], list[Finding]]:
    """The rows of a parsed file, and a note where they were inside an object."""
    if isinstance(content, list):
        return content, []
    lists = (
        {name: value for name, value in content.items() if isinstance(value, list) and value}
        if isinstance(content, dict)
        else {}
    )
    if len(lists) != 1 or not isinstance(next(iter(lists.values()))[0], dict):
        columns = isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())
        raise KilotuneError(
            "a JSON file must hold a list of objects",
            where=where,
            fix='Write it as [{"text": …, "label": …}, …]'
            + (", as pandas' to_json(orient='records') does" if columns else ""),
        )
    name, items = next(iter(lists.items()))
    if name in TURNS:
        return [content], []
    return items, [finding("json-inner-list", key=name)]
