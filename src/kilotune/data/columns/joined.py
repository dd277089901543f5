"""Several columns as one text, and a cell of lists and objects as the text in it."""

from collections.abc import Iterator, Mapping
from typing import Any

# A field's column, or several in their order.
Columns = str | tuple[str, ...]


def names_in(columns: Columns) -> tuple[str, ...]:
    """The columns of one field."""
    return (columns,) if isinstance(columns, str) else columns


def shown(columns: Columns) -> str:
    """The columns of one field, as messages name them."""
    return " + ".join(f"'{name}'" for name in names_in(columns))


def join(parts: Mapping[str, Any]) -> str:
    """The texts of `parts`, each on lines of its own behind its column's name; empty ones left out.

    One that is alone is written without its name only where there was no other column.
    """
    texts = {name: text_in(value).strip() for name, value in parts.items()}
    return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)


def text_in(value: Any) -> str:
    """The text of a cell; of a list or an object the texts inside, a line each."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return "\n".join(_texts(value))
    if value is None or value != value or isinstance(value, bytes):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
