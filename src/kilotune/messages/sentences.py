"""What is said of data and runs: a code and values on record, a sentence when it is shown."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter
from typing import Any

from kilotune.errors import some

# {"phrase": code, **values}: values are texts, numbers, phrases, and lists of those.
Phrase = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """What every finding of one code says, and what to do about it."""

    severity: str
    what: str
    fix: str


def phrase(code: str, **values: Any) -> Phrase:
    """What `say` makes a sentence of; numbers that are none (NaN, infinity) become None."""
    return {"phrase": code, **{name: _recorded(value) for name, value in values.items()}}


def _recorded(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(said: Phrase) -> str:
    """The sentence. Raises ValueError for a phrase that is not known or lacks a value."""
    code = said.get("phrase")
    text = _catalogue()["phrases"].get(code)
    if text is None:
        raise ValueError(f"no phrase is called {code!r}")
    return fill(text, said)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """`text` with its `{names}` replaced. Raises ValueError where a value is missing or unfit."""
    try:
        return SENTENCES.vformat(text, (), values)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"'{text}' lacks a value, or has an unfit one: {error}") from error


class _Sentences(Formatter):
    """Python's formats, and those of phrases, of lists, and of numbers that are none."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list):
            return some([self.format_field(item, format_spec) for item in value])
        if isinstance(value, dict):
            return say(value)
        if value is None:
            return "nan"
        return str(super().format_field(value, format_spec))


SENTENCES = _Sentences()


def kind_of(code: str) -> Kind:
    """What findings of that code say. Raises ValueError for one that is not known."""
    if code not in kinds():
        raise ValueError(f"no finding is called {code!r}")
    return kinds()[code]


@cache
def kinds() -> dict[str, Kind]:
    """What each finding says, by code, in the order of docs and reports."""
    return {code: Kind(**kind) for code, kind in _catalogue()["findings"].items()}


@cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads((files("kilotune.messages") / "en.toml").read_text(encoding="utf-8"))
