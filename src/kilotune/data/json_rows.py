"""JSON and JSON Lines to rows."""

import json
import re
from typing import Any

from kilotune.data.encodings import decode
from kilotune.data.finding import Finding
from kilotune.data.table import Read, Row
from kilotune.errors import KilotuneError, some

# An escape that is half a character, unless its other half follows: then it is a whole one.
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# Under these names an object's list holds turns, and the object is one row.
TURNS = ("messages", "conversations")


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
    """One JSON object a line."""
    text, findings = decode(raw, where)
    return _lines(text, where), findings


def _lines(text: str, where: str) -> list[Row]:
    rows: list[Row] = []
    bad: list[str] = []
    # Only "\n" ends a record: str.splitlines would also cut at separators inside strings.
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            values = parse(line)
        except ValueError as error:
            bad.append(f"{number}{_reason(error)}")
            continue
        if isinstance(values, dict):
            rows.append(Row(number, values))
        else:
            bad.append(str(number))
    if bad:
        raise KilotuneError(
            f"not a JSON object on line {some(bad)}",
            where=where,
            fix="Write one JSON object a line",
        )
    return rows


def _reason(error: ValueError) -> str:
    """The reason in brackets, where it is more than that the text is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return ""
    digits = "integer string conversion" in str(error)
    return " (a number of too many digits)" if digits else f" ({error})"


def read_json(raw: bytes, where: str) -> Read:
    """A list of objects, or an object that holds one such list; rows are its items, from 1."""
    text, findings = decode(raw, where)
    try:
        content = parse(text)
    except ValueError as error:
        if _is_json_lines(text, error):
            message = "the file holds JSON Lines, and was read as that"
            fix = "Nothing need be done; '.jsonl' is the usual ending"
            return _lines(text, where), [*findings, Finding("json-lines", "note", (), message, fix)]
        line = getattr(error, "lineno", None)
        raise KilotuneError(
            f"not valid JSON{_reason(error)}",
            where=f"{where}:{line}" if line else where,
            fix="Check commas and quotes there" if line else "Correct it there",
        ) from error
    items, note = _items(content, where)
    bad = [str(number) for number, item in enumerate(items, 1) if not isinstance(item, dict)]
    if bad:
        raise KilotuneError(
            f"a JSON file must hold a list of objects; other things are item {some(bad)}",
            where=where,
            fix='Write it as [{"text": …, "label": …}, …]',
        )
    return [Row(number, item) for number, item in enumerate(items, 1)], findings + note


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
    message = f"the rows are the list under '{name}'"
    return items, [Finding("json-inner-list", "note", (), message, "Nothing need be done")]
