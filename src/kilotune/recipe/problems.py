"""What is wrong with a recipe, in words: each setting by its full name, and what was meant."""

import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from reprlib import Repr
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kilotune.errors import shorten
from kilotune.recipe.schema import (
    BitFitSettings,
    FullSettings,
    LoraSettings,
    Recipe,
    Settings,
    TopLayersSettings,
    settings_of,
)

METHODS: dict[str, type[Settings]] = {
    "lora": LoraSettings,
    "dora": LoraSettings,
    "top_layers": TopLayersSettings,
    "full": FullSettings,
    "bitfit": BitFitSettings,
}

# What a value must be, by pydantic's names for what it is not.
KINDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
    "path": "a path", "tuple": "a list", "dict": "a group of settings",
    "model": "a group of settings", "finite": "a whole number",  # infinity, for one
}  # fmt: skip
BOUNDS = {
    "greater_than": ("gt", "more than {}"), "greater_than_equal": ("ge", "{} or more"),
    "less_than": ("lt", "less than {}"), "less_than_equal": ("le", "{} or less"),
    "too_short": ("min_length", "a list of {} or more"),
    "too_long": ("max_length", "a list of {} or fewer"),
}  # fmt: skip


# Longer texts are shortened in what is said, and nothing is looked for that is spelt like them.
LONGEST = 60
# Wrong settings of which it is said what is wrong with them.
MOST_SAID = 30


def brief(value: object) -> str:
    """`value` as Python writes it, or the beginning and the end of that."""
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxdict = 2, LONGEST, LONGEST, 3
    return short.repr(value)


def problems(error: ValidationError) -> dict[str, str]:
    """Each wrong setting by its full name, and what is wrong with it; "" beyond MOST_SAID."""
    by_name: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_name.setdefault(_name(detail), []).append(detail)
    # Of a list with a wrong item only the item is said, not that it might have been something else.
    whole = {name.partition("[")[0] for name in by_name if "[" in name}
    wrong = [(name, of) for name, of in by_name.items() if name not in whole]
    # What was meant by a name takes a look at all there are.
    return {n: _said(n, of) if place < MOST_SAID else "" for place, (n, of) in enumerate(wrong)}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Which of `known` settings somebody who wrote `name` is likeliest to have meant."""
    part, _, last = name.rpartition(".")
    if len(last) > LONGEST:
        return None
    by_last: dict[str, str] = {}
    beside: dict[str, str] = {}
    for each in known:
        place, _, own = each.rpartition(".")
        by_last.setdefault(own, each)
        if place == part:
            beside[own] = each
    if last in by_last:  # right name, wrong part
        return by_last[last]
    for names, cutoff in ((beside, 0.6), (by_last, 0.75)):
        if close := get_close_matches(last, names, 3, cutoff):
            # Letters are swapped more often than they are mistaken.
            return names[min(close, key=lambda each: sorted(each) != sorted(last))]
    return None


def setting_names(model: type[Settings] = Recipe, prefix: str = "") -> Iterator[str]:
    """The full names of all settings and of the parts that hold them."""
    return (setting.name for setting in settings_of(model, prefix))


@cache
def _known() -> tuple[str, ...]:
    return tuple(setting_names())


def _name(detail: ErrorDetails) -> str:
    """The full name of the setting, without pydantic's own names for the kinds of a value."""
    known = _known()
    name = ""
    for place, part in enumerate(detail["loc"]):
        if detail["loc"][:1] == ("tune",) and place == 1 and part in METHODS:
            continue
        longer = f"{name}.{part}".removeprefix(".")
        if longer in known or detail["type"] == "extra_forbidden":
            name = longer
        elif isinstance(part, int):
            name = f"{name}[{part}]"
        elif name in ("data.columns", "model.template_arguments"):
            name = longer
    name = shorten(name)
    return f"{name}.method" if detail["type"].startswith("union_tag") else name


def _said(name: str, details: list[ErrorDetails]) -> str:
    first = details[0]
    if first["type"] == "extra_forbidden":
        return _unknown(name, first)
    if first["type"] == "missing":
        return "must be given"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    value = first["input"]
    if first["type"].startswith("union_tag"):
        value = value.get("method")
    wanted = list(dict.fromkeys(_wanted(detail) for detail in details))
    found = "empty" if value is None else brief(value)
    said = f"must be {_either(wanted)}, not {found}"
    choices = [name for detail in details for name in _choices(detail)]
    word = value[:LONGEST] if isinstance(value, str) else ""
    close = get_close_matches(word, choices, 1)
    return f"{said}; did you mean {close[0]}?" if close else said


def _unknown(name: str, detail: ErrorDetails) -> str:
    known = _known()
    if name in known:
        methods = [key for key, model in METHODS.items() if name in setting_names(model, "tune.")]
        return f"a setting of tune.method {methods[0]}, not of {detail['loc'][1]}"
    last = name.rpartition(".")[2]
    if here := names_elsewhere()["settings"].get(last):
        return f"no such setting; here it is {here}"
    if why := names_elsewhere()["instead"].get(last):
        return f"no such setting; {why}"
    meant = nearest(name, known)
    return f"no such setting; did you mean {meant}?" if meant else "no such setting"


@cache
def names_elsewhere() -> dict[str, dict[str, str]]:
    """What other trainers call `settings`, and what is there `instead` of some of theirs."""
    source = files("kilotune.recipe") / "names_elsewhere.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _wanted(detail: ErrorDetails) -> str:
    kind = detail["type"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        bound = context[key]
        return words.format(f"{int(bound):,}" if bound == int(bound) else f"{bound:g}")
    if choices := _choices(detail):
        return _either(choices)
    return KINDS.get(kind.split("_")[0], detail["msg"])


def _either(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _choices(detail: ErrorDetails) -> list[str]:
    """The words that the setting takes, where it takes only some."""
    context: dict[str, Any] = detail.get("ctx", {})
    if detail["type"].startswith("union_tag"):
        return list(METHODS)
    listed = str(context.get("expected", "")) if detail["type"] == "literal_error" else ""
    return [word.strip("' ") for word in listed.replace(" or ", ", ").split(", ") if word]
