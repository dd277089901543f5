"""How large, at most, what a template's operators, methods and filters make: told beforehand.

Only what can make more than it is given is looked at.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from string import Formatter
from typing import Any

from jinja2.utils import Namespace

# Characters that one operation may make. An item of a list counts as so many.
AT_ONCE, ITEM = 300_000_000, 100
# Of a number that is computed.
BITS = 4096

# A field of `%`, as in `%(name)-5.3d`. It takes the letter with it, as Python does: `%%` is one.
PERCENT = re.compile(
    r"%(?:\([^()]*\))?[#0\- +]*(?P<width>\*|[0-9]*)(?:\.(?P<precision>\*|[0-9]*))?[hlL]?"
    r"(?P<kind>.)",
    re.DOTALL,
)
NUMBERS = re.compile(r"\d+")
# Where str.splitlines, and so the filter `indent`, ends a line.
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class TemplateLimitError(Exception):
    """A template that takes too long, or makes too much."""


def weight(value: Any, most: int = AT_ONCE) -> int:
    """The characters in `value` and ITEM for each item, counted until they are more than `most`."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if isinstance(value, Namespace):
        value = value._Namespace__attrs
    if not isinstance(value, Collection):
        return 1
    total = ITEM
    for part in _parts(value):
        total += ITEM + weight(part, most - total)
        if total > most:
            break
    return total


def check_product(left: Any, right: Any) -> None:
    """Raise TemplateLimitError where `left * right` is too large."""
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > BITS:
            raise TemplateLimitError("computes with too large a number")
        return
    sides = (abs(side) if isinstance(side, int) else weight(side) for side in (left, right))
    first, second = (max(1, side) for side in sides)
    _check(first * second)


def check_power(base: Any, exponent: Any) -> None:
    """Raise TemplateLimitError where `base ** exponent` is too large."""
    bits = base.bit_length() if isinstance(base, int) else 1
    if bits * abs(exponent) > BITS:
        raise TemplateLimitError("computes with too large a number")


def check_percent(text: str | bytes, values: Any) -> None:
    """Raise TemplateLimitError where `text % values` is too large."""
    _check(_percent(text, *(values if isinstance(values, tuple) else (values,))))


def check_method(name: str, on: Any, /, *args: Any, **named: Any) -> None:
    """Raise TemplateLimitError where what a text's or a number's method makes is too large."""
    if name in METHODS:
        _check(METHODS[name](on, *args, **named))


def check_filter(name: str, on: Any, /, *args: Any, **named: Any) -> None:
    """Raise TemplateLimitError where what the filter `name` makes is too large."""
    if name in FILTERS:
        _check(FILTERS[name](on, *args, **named))


def _check(size: int) -> None:
    if size > AT_ONCE:
        raise TemplateLimitError(f"makes more than {AT_ONCE:,} characters at once")


def _parts(value: Collection[Any]) -> Iterable[Any]:
    return (*value.keys(), *value.values()) if isinstance(value, Mapping) else value


def _depth(value: Any) -> int:
    if not isinstance(value, Collection) or isinstance(value, str | bytes | range):
        return 0
    return 1 + max(map(_depth, _parts(value)), default=0)


def _text(value: Any) -> Any:
    """What a filter takes `value` for."""
    return value if isinstance(value, str | bytes) else str(value)


def _size(number: Any) -> int:
    """A width or a count. Python itself refuses what is not a whole number."""
    return abs(number) if isinstance(number, int) else 0


# Each has the parameters of what it is the size of, as far as they matter.


def _replaced(text: Any, old: Any, new: Any, count: int | None = None) -> int:
    text, old, new = _text(text), _text(old), _text(new)
    times: int = text.count(old)
    if count is not None and count >= 0:
        times = min(times, count)
    return len(text) + times * len(new)


def _joined(between: Any, items: Any) -> int:
    many = len(items) if isinstance(items, Collection) else 1
    size: int = weight(items) + many * len(_text(between))
    return size


def _padded(_: Any, width: Any = 0, *__: Any) -> int:
    return _size(width)


def _in_bytes(_: int, length: Any = 1, *__: Any, **___: Any) -> int:
    return _size(length)


def _without_tabs(text: Any, tabsize: Any = 8) -> int:
    tab = b"\t" if isinstance(text, bytes) else "\t"
    tabs: int = text.count(tab)
    return len(text) + tabs * _size(tabsize)


def _translated(text: Any, table: Any, *_: Any, **__: Any) -> int:
    values = table.values() if isinstance(table, Mapping) else table
    longest = max(map(weight, values), default=1) if isinstance(values, Collection) else 1
    return len(text) * longest


def _braces(text: str, /, *args: Any, **named: Any) -> int:
    specs = [spec or "" for _, field, spec, _ in Formatter().parse(text) if field is not None]
    if any("{" in spec for spec in specs):
        raise TemplateLimitError("formats with a width that is computed")
    widths = sum(int(number) for spec in specs for number in NUMBERS.findall(spec))
    return len(text) + widths + len(specs) * _largest((*args, *named.values()))


def _percent(text: Any, /, *args: Any, **named: Any) -> int:
    text = text.decode("latin-1") if isinstance(text, bytes) else _text(text)
    size = len(text)
    largest = _largest((*args, *named.values()))
    for field in PERCENT.finditer(text):
        if field["kind"] == "(":
            raise TemplateLimitError("formats a name with brackets in it")
        numbers = [field["width"], field["precision"] or ""]
        if "*" in numbers:
            raise TemplateLimitError("formats with a width that is computed")
        size += largest + sum(int(number) for number in numbers if number)
    return size


def _largest(values: Iterable[Any]) -> int:
    return max(map(weight, values), default=0)


def _indented(text: Any, width: Any = 4, *_: Any, **__: Any) -> int:
    text = str(text)
    lines: int = 1 + sum(map(text.count, LINE_ENDS))
    return len(text) + lines * (len(width) if isinstance(width, str) else _size(width))


def _batches(_: Any, linecount: Any, *__: Any, **___: Any) -> int:
    return ITEM * _size(linecount)


def _slices(_: Any, slices: Any, *__: Any, **___: Any) -> int:
    return ITEM * _size(slices)


def _rounded(_: Any, precision: Any = 0, *__: Any, **___: Any) -> int:
    check_power(10, precision)
    return 0


def _as_json(
    value: Any, _: Any = None, indent: Any = None, separators: Any = None, *__: Any, **___: Any
) -> int:
    within = len(indent) if isinstance(indent, str) else _size(indent)
    size = weight(value)
    return size + size // ITEM * (_depth(value) * within + _largest(separators or ()))


def _printed(value: Any) -> int:
    size = weight(value)
    return size + size // ITEM * _depth(value)


def _linked(text: Any, /, *args: Any, **named: Any) -> int:
    texts = [other for other in (*args, *named.values()) if not isinstance(other, int)]
    return len(str(text)) * (1 + sum(map(weight, texts)))


def _wrapped(
    text: Any, width: Any = 79, _: Any = True, wrapstring: Any = None, *__: Any, **___: Any
) -> int:
    return len(str(text)) * (1 + len(wrapstring or ""))


METHODS: dict[str, Callable[..., int]] = {
    "replace": _replaced, "join": _joined, "center": _padded, "ljust": _padded, "rjust": _padded,
    "zfill": _padded, "expandtabs": _without_tabs, "translate": _translated,
    "to_bytes": _in_bytes, "format": _braces, "format_map": _braces,
}  # fmt: skip
FILTERS: dict[str, Callable[..., int]] = {
    "replace": _replaced, "center": _padded, "format": _percent, "indent": _indented,
    "join": lambda items, d="", attribute=None: _joined(d, items), "batch": _batches,
    "slice": _slices, "round": _rounded, "tojson": _as_json, "pprint": _printed,
    "urlize": _linked, "wordwrap": _wrapped,
}  # fmt: skip
