"""Synonym replacement by dictionary: WordNet for English, sets in the manner of Cilin for Chinese.

Or the user's own two-column file, for any language. As in EDA (Wei and Zou 2019), alpha * words
words of a text are replaced, at least one.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from kilotune.augmentation.edits import Words, edited, times
from kilotune.augmentation.operation import Operation
from kilotune.augmentation.protection import Protection
from kilotune.augmentation.segments import Piece, language_of
from kilotune.data.example import Example
from kilotune.errors import KilotuneError

# Single signs have too many meanings, and words of grammar stand in some sets.
LEAST_SIGNS = 2
COMMON = "不是 没有 不能 不会 不要 一个 这个 那个 我们 你们 他们 自己 什么 怎么"
SPARED = frozenset(COMMON.split())
# What "an" stands before.
VOWEL_SOUND = re.compile(r"(?!uni(?!n|m)|us[eu]|eu|one\b|once\b)[aeiou]|hour|honest|hono|heir")


class Thesaurus(Protocol):
    """Words to other words."""

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Synonyms of `word` in the same form, lower case; none where there are none."""


class SynonymTable:
    """Synonyms out of a mapping."""

    def __init__(self, table: Mapping[str, tuple[str, ...]]) -> None:
        self._table = table

    def synonyms(self, word: str) -> tuple[str, ...]:
        """What the table has for `word`."""
        return self._table.get(word, ())


def read_cilin(path: Path) -> SynonymTable:
    """Synonym sets in the manner of Cilin: a code, then words; `=` marks synonyms.

    `#` (related words) and `@` (words alone) are left out; so is a word in several sets, whose
    meaning is not plain.
    """
    sets: dict[str, list[list[str]]] = defaultdict(list)
    for line in _text(path).splitlines():
        code, *words = line.split()
        if code.endswith("="):
            kept = [word for word in words if len(word) >= LEAST_SIGNS]
            for word in kept:
                sets[word].append(kept)
    return SynonymTable(
        {
            word: tuple(other for other in own[0] if other != word)
            for word, own in sets.items()
            if len(own) == 1 and word not in SPARED
        }
    )


def read_pairs(path: Path) -> SynonymTable:
    """The user's file: a word, a tab or comma, a synonym, on each line; one way, as written.

    Raises KilotuneError that names every line of another form.
    """
    table: dict[str, list[str]] = defaultdict(list)
    wrong = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t" if "\t" in line else ",")]
        if len(cells) != 2 or not all(cells):
            wrong.append(str(number))
        else:
            table[cells[0].lower()].append(cells[1])
    if wrong:
        raise KilotuneError(
            f"lines that are not a word and a synonym: {', '.join(wrong[:20])}",
            where=str(path),
            fix="Write two columns, with a tab or a comma between them",
        )
    return SynonymTable({word: tuple(dict.fromkeys(others)) for word, others in table.items()})


def synonym(
    protection: Protection,
    alpha: float,
    thesauri: Mapping[str, Thesaurus],
    own: Thesaurus | None = None,
    usual: str | None = None,
) -> Operation:
    """Replace words by synonyms: of `own` first, else of the language's in `thesauri`."""

    def operation(example: Example, rng: random.Random) -> list[Example]:
        chosen = [t for t in (own, thesauri.get(language_of(example.text, usual) or "")) if t]
        return edited(
            example, protection, lambda parts: _replaced(parts, rng, alpha, chosen)
        ) if chosen else []  # fmt: skip

    return operation


def words_from(
    thesauri: Mapping[str, Thesaurus], own: Thesaurus | None, usual: str | None
) -> Words:
    """What random insertion inserts: synonyms of random words of the text that have any."""

    def words(said: list[str], rng: random.Random, count: int) -> list[str]:
        language = language_of(" ".join(said), usual) or ""
        chosen = [t for t in (own, thesauri.get(language)) if t]
        found: list[str] = []
        for word in rng.sample(said, len(said)):
            if len(found) == count:
                break
            if others := _synonyms(word, chosen):
                found.append(rng.choice(others))
        return found

    return words


def _replaced(
    parts: list[Piece], rng: random.Random, alpha: float, thesauri: Iterable[Thesaurus]
) -> list[Piece]:
    chosen = list(thesauri)
    words = [place for place, part in enumerate(parts) if part.word]
    left = times(alpha, len(words))
    done = list(parts)
    rng.shuffle(words)
    for place in words:
        others = _synonyms(parts[place].text, chosen)
        if others:
            old, new = parts[place].text, rng.choice(others)
            done[place] = Piece(_cased(new, old), True)
            _agree(done, place, old)
            left -= 1
        if left == 0:
            break
    return done


def _synonyms(word: str, thesauri: Iterable[Thesaurus]) -> tuple[str, ...]:
    """Of the first dictionary that has any; none of a name, which is in capitals."""
    for thesaurus in thesauri:
        if found := thesaurus.synonyms(word.lower()):
            return found
    return ()


def _cased(new: str, old: str) -> str:
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _agree(parts: list[Piece], place: int, old: str) -> None:
    """`a` or `an` before a word that begins with another kind of sound now."""
    if (
        place < 2
        or parts[place - 1].text != " "
        or parts[place - 2].text.lower() not in ("a", "an")
    ):
        return
    new = parts[place].text
    sounds = [bool(VOWEL_SOUND.match(word.lower())) for word in (old, new)]
    if sounds[0] != sounds[1]:
        article = parts[place - 2].text[0] + ("n" if sounds[1] else "")
        parts[place - 2] = Piece(article, parts[place - 2].word)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise KilotuneError(
            "cannot read the synonyms", where=str(path), fix="Give a text file in UTF-8"
        ) from error
