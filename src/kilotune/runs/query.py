"""`--where`: which runs are meant, as `val.macro_f1 > 0.8 and tune.rank = 8`.

A grammar of its own, read by descent; nothing is evaluated as code.

    condition  = all-of { "or" all-of }
    all-of     = one { "and" one }
    one        = "not" one | "(" condition ")" | FIELD operator VALUE
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (contains)
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from kilotune.errors import KilotuneError

Value = bool | float | str | None
Test = Callable[[Mapping[str, Value]], bool]

TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"[^"]*"|'[^']*')|(?P<sign><=|>=|!=|==|[=<>~()])|(?P<word>(?!["'])[^\s=<>!~()]+))"""
)
WORDS: dict[str, Value] = {"true": True, "false": False, "none": None, "null": None}
FIX = 'Write it as "val.macro_f1 > 0.8 and tune.rank = 8"'

ORDERED: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """What a run must be like: `test` takes its fields by name; `fields` are those asked for."""

    test: Test
    fields: tuple[str, ...]

    def check_fields(self, known: Collection[str]) -> None:
        """Raise KilotuneError for a field that none of the runs has."""
        for name in self.fields:
            if name not in known:
                meant = get_close_matches(name, known, 1) or [", ".join(sorted(known)[:12])]
                raise KilotuneError(f"no run has '{name}'", where="--where", fix=f"Try {meant[0]}")


def parse_condition(text: str) -> Condition:
    """The condition written in `text`. Raises KilotuneError that says where it cannot be read."""
    parser = _Parser(text)
    return Condition(parser.whole(), tuple(dict.fromkeys(parser.fields)))


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.place = 0
        self.fields: list[str] = []

    def whole(self) -> Test:
        test = self._any_of()
        if self._next is not None:
            raise self._refusal("an end, 'and' or 'or'")
        return test

    def _any_of(self) -> Test:
        tests = [self._all_of()]
        while self._taken("or"):
            tests.append(self._all_of())
        return lambda run: any(test(run) for test in tests)

    def _all_of(self) -> Test:
        tests = [self._one()]
        while self._taken("and"):
            tests.append(self._one())
        return lambda run: all(test(run) for test in tests)

    def _one(self) -> Test:
        if self._taken("not"):
            test = self._one()
            return lambda run: not test(run)
        if self._taken("("):
            test = self._any_of()
            if not self._taken(")"):
                raise self._refusal("')'")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        kind, field = self._next or ("", "")
        if kind != "word":
            raise self._refusal("the name of a setting or figure")
        self.place += 1
        kind, sign = self._next or ("", "")
        if kind != "sign" or sign in "()":
            raise self._refusal("=, !=, <, <=, >, >= or ~")
        self.place += 1
        if self._next is None or self._next[0] == "sign":
            raise self._refusal("a value")
        value = _value(*self._next)
        self.place += 1
        if sign in ORDERED and not _is_number(value):
            raise self._refusal(f"a number behind {sign}", back=1)
        self.fields.append(field)
        return lambda run: _holds(run.get(field), sign, value)

    @property
    def _next(self) -> tuple[str, str] | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def _taken(self, token: str) -> bool:
        found = self._next
        if found is None or found[0] == "quoted" or found[1].lower() != token:
            return False
        self.place += 1
        return True

    def _refusal(self, wanted: str, back: int = 0) -> KilotuneError:
        rest = [text for _, text in self.tokens[self.place - back :]]
        found = f"'{' '.join(rest)}'" if rest else "its end"
        return KilotuneError(f"{wanted} is wanted before {found}", where="--where", fix=FIX)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, place = [], 0
    while text[place:].strip():
        found = TOKEN.match(text, place)
        if found is None:
            raise KilotuneError(f"cannot read '{text[place:].strip()}'", where="--where", fix=FIX)
        assert found.lastgroup is not None
        tokens.append((found.lastgroup, found[found.lastgroup]))
        place = found.end()
    return tokens


def _value(kind: str, text: str) -> Value:
    if kind == "quoted":
        return text[1:-1]
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


def _holds(found: Value, sign: str, value: Value) -> bool:
    """A run without the field is none that any comparison but `!=` holds for."""
    if sign in ORDERED:
        return _is_number(found) and ORDERED[sign](float(found or 0), float(value or 0))
    if sign == "~":
        return found is not None and _written(value).lower() in _written(found).lower()
    same = found == value if _is_number(found) and _is_number(value) else _same(found, value)
    return same if sign in ("=", "==") else not same


def _same(found: Value, value: Value) -> bool:
    return _written(found).lower() == _written(value).lower()


def _written(value: Value) -> str:
    return f"{value:g}" if _is_number(value) else str(value)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
