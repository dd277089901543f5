"""What no operation may change in a text: numbers, addresses, quotations, fields, instructions."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kilotune.data.example import Example
from kilotune.errors import KilotuneError

Span = tuple[int, int]

# Addresses, handles, tags, numbers (with their signs, units and codes), what stands in quotation
# marks or book-title marks, placeholders and code, and the name of a field at a line's start.
FIXED = re.compile(
    r"""(?:https?://|www\.)\S+ | [\w.+-]+@[\w-]+\.[\w.]+ | (?<!\w)[@\#]\w+
    | [\w$€£¥%+-]*\d[\w.,:/%°$€£¥-]*
    | "[^"\n]{1,200}" | “[^”\n]{1,200}” | „[^“”\n]{1,200}[“”] | «[^»\n]{1,200}»
    | 「[^」\n]{1,200}」 | 『[^』\n]{1,200}』 | 《[^》\n]{1,200}》
    | (?<!\w)'[A-Z][^'\n]{0,80}'(?!\w) | `[^`\n]+` | <[^<>\s][^<>\n]{0,80}> | \{[^{}\n]{0,80}\}
    | ^[ \t]*[^\W\d]\w*(?:[ \t-]\w+){0,2}[:：](?=\s|$)""",
    re.VERBOSE | re.MULTILINE,
)
AROUND = " .,:;!?\"'“”„«»「」『』《》`"
# A line in so many texts is an instruction that came with them.
REPEATED, REPEATED_SHARE = 3, 0.05


@dataclass(frozen=True, slots=True)
class Protection:
    """The user's patterns, and the lines and the beginning that texts share: the instruction."""

    patterns: tuple[re.Pattern[str], ...] = ()
    lines: frozenset[str] = frozenset()
    beginning: str = ""

    def spans(self, text: str, answer: str | None = None) -> list[Span]:
        """The parts of `text` to leave alone, in order and apart; of `answer` its JSON's values."""
        found = [match.span() for match in FIXED.finditer(text)]
        for pattern in self.patterns:
            found += [match.span() for match in pattern.finditer(text)]
        if self.beginning and text.startswith(self.beginning):
            found.append((0, len(self.beginning)))
        if self.lines:
            found += _lines(text, self.lines)
        if answer and answer.lstrip()[:1] in ("{", "["):
            found += _occurrences(text, _leaves(answer))
        return _joined(found)

    def lost(self, text: str, before: str, answer: str | None = None) -> list[str]:
        """What is protected in `before` and does not stand in `text`, to the letter.

        Quotation marks and punctuation around it may be others.
        """
        kept = [before[a:b].strip(AROUND) for a, b in self.spans(before, answer)]
        return [part for part in kept if part not in text]

    def of(self, examples: Sequence[Example]) -> "Protection":
        """The same with what the texts of `examples` share."""
        texts = [example.text for example in examples]
        return replace(self, lines=repeated_lines(texts), beginning=shared_beginning(texts))


def protection(patterns: Iterable[str]) -> Protection:
    """Protection with the user's patterns. Raises KilotuneError for one that is none."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise KilotuneError(
                f"not a regular expression: {error}",
                where=f"augment.protect: {pattern}",
                fix="Write it as Python's re module takes it",
            ) from error
    return Protection(tuple(compiled))


def repeated_lines(texts: Sequence[str]) -> frozenset[str]:
    """Lines that several of `texts` have, each of more than one line."""
    several = [text for text in texts if "\n" in text]
    counts = Counter(line for text in several for line in set(text.split("\n")) if line.strip())
    least = max(REPEATED, REPEATED_SHARE * len(several))
    return frozenset(line for line, count in counts.items() if count >= least)


def shared_beginning(texts: Sequence[str]) -> str:
    """What all of `texts` begin with, up to its last colon, full stop or line end."""
    if len(set(texts)) < REPEATED:
        return ""
    low, high = min(texts), max(texts)
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    ends = [match.end() for match in re.finditer(r"[:：.。?？!！]\s|[：。？！]|\n", low[:same])]
    return low[: ends[-1]] if ends else ""


def _lines(text: str, lines: frozenset[str]) -> list[Span]:
    found, start = [], 0
    for line in text.split("\n"):
        if line in lines:
            found.append((start, start + len(line)))
        start += len(line) + 1
    return found


def _leaves(answer: str) -> set[str]:
    try:
        waiting: list[Any] = [json.loads(answer)]
    except ValueError:
        return set()
    leaves: set[str] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.strip():
            leaves.add(value.strip())
    return leaves


def _occurrences(text: str, values: set[str]) -> list[Span]:
    return [
        match.span()
        for value in values
        for match in re.finditer(re.escape(value), text, re.IGNORECASE)
    ]


def _joined(spans: Iterable[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        elif end > start:
            joined.append((start, end))
    return joined
