"""What a column holds, told from a sample of its rows."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from kilotune.data.columns.joined import text_in
from kilotune.data.files.table import Row
from kilotune.data.scripts import SPACELESS

# Rows that are looked at, spread over the file.
SAMPLE = 400
# Of texts in the middle: so many words are more than a name; of a writing without spaces so many
# signs are a word.
PROSE_WORDS, SIGNS = 3, 2
# What nobody reads as a text: addresses, paths, numbers, dates, codes.
NO_PROSE = re.compile(
    r"\w+://\S+|\S+@\S+|[\w./\\ -]+\.\w{2,4}|[\d\s.,:/+%TZ-]+|[0-9a-fA-F-]{16,}", re.ASCII
)
# A share of the rows that is nearly all of them.
NEARLY = 0.9
# Of closed values there are few, and each comes again.
MOST_VALUES, LONGEST_VALUE, CLOSED_SHARE = 50, 60, 0.2
TRUE = frozenset({"true", "yes", "y", "1", "ja", "是"})
FALSE = frozenset({"false", "no", "n", "0", "nein", "否"})
# What parts are called, without case.
PARTS = {
    "train": "train", "training": "train", "trn": "train", "训练": "train", "训练集": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "development": "validation", "eval": "validation", "验证": "validation", "验证集": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test", "held-out": "test",
    "heldout": "test", "held_out": "test", "测试": "test", "测试集": "test",
}  # fmt: skip
# Columns of true and false that say so of one part, as is_test does.
IS_PART = re.compile(r"(?:is|in)[ _-]?(\w+)")


@dataclass(frozen=True)
class Profile:
    """A column by its name and its cells in the sampled rows, None where there is nothing."""

    name: str
    cells: tuple[Any, ...]

    @cached_property
    def texts(self) -> list[str]:
        """The cells that hold something, as texts; of lists and objects the texts inside."""
        return [text for cell in self.cells if (text := text_in(cell).strip())]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each value comes, without case."""
        return Counter(text.casefold() for text in self.texts)

    @cached_property
    def different(self) -> float:
        """Different values, as a share of those there are."""
        return len(self.counts) / len(self.texts) if self.texts else 0.0

    @cached_property
    def length(self) -> float:
        """Characters in the middle."""
        return median(map(len, self.texts)) if self.texts else 0.0

    @cached_property
    def is_prose(self) -> bool:
        """Whether most cells are words that a person reads, and not names, numbers or codes."""
        if not self.texts:
            return False
        words = median(_words(text) for text in self.texts)
        return words >= PROSE_WORDS and not self._mostly(NO_PROSE)

    @cached_property
    def is_closed(self) -> bool:
        """Whether there are few short values, each of several rows."""
        return (
            2 <= len(self.counts) <= min(MOST_VALUES, max(2, CLOSED_SHARE * len(self.texts)))
            and max(map(len, self.counts)) <= LONGEST_VALUE
        )

    @cached_property
    def is_numeric(self) -> bool:
        """Whether the values are numbers."""
        return bool(self.texts) and all(map(_is_number, self.texts))

    @cached_property
    def truths(self) -> dict[str, bool]:
        """What each value says, where all say yes or no; else nothing."""
        if not self.counts or not self.counts.keys() <= TRUE | FALSE:
            return {}
        return {value: value in TRUE for value in self.counts}

    @property
    def says_true_or_false(self) -> bool:
        """Whether the values are true and false by those words: 0 and 1 may be anything."""
        return bool(self.counts) and self.counts.keys() <= {"true", "false"}

    def share(self, pattern: re.Pattern[str]) -> float:
        """How many of the texts are altogether as `pattern` says."""
        if not self.texts:
            return 0.0
        return sum(pattern.fullmatch(text) is not None for text in self.texts) / len(self.texts)

    def _mostly(self, pattern: re.Pattern[str]) -> bool:
        return self.share(pattern) > 0.5


def profile(name: str, rows: Sequence[Row]) -> Profile:
    """The profile of a column of a table's rows."""
    return Profile(name, tuple(row.values.get(name) for row in sampled(rows)))


def sampled(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows spread over all of them: the first of a file may all be of one kind."""
    return rows[:: max(1, -(-len(rows) // SAMPLE))]


def profiles(names: Iterable[str], rows: Sequence[Row]) -> dict[str, Profile]:
    """The profile of each column."""
    return {name: profile(name, rows) for name in names}


def _words(text: str) -> float:
    """How many words a text has."""
    signs = 0 if text.isascii() else len(SPACELESS.findall(text))
    return len(text.split()) + signs / SIGNS


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def part_of(column: str, value: object) -> str | None:
    """The part that a cell of `column` names; None where it names none."""
    said = text_in(value).strip().casefold()
    match = IS_PART.fullmatch(column.casefold())
    if match and (part := PARTS.get(match[1])) and said in TRUE | FALSE:
        other = "test" if part == "train" else "train"
        return part if said in TRUE else other
    return PARTS.get(said)
