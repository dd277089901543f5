"""A text in pieces: words that may be changed, and everything else as it stands.

Chinese is cut by `rjieba` or `jieba` where one is installed, else into single signs.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from kilotune.augmentation.protection import Span
from kilotune.data.languages import language
from kilotune.data.scripts import script, spaceless_share

# A word with its inner apostrophes and hyphens; of writing without spaces a run of it.
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
SPACELESS_SHARE = 0.3
ENGLISH, CHINESE = "English", "Chinese"
SEGMENTERS = ("rjieba", "jieba")


class Piece(NamedTuple):
    """A stretch of text; `word` says that it is a word and may be changed."""

    text: str
    word: bool


def pieces(text: str, protected: Sequence[Span] = ()) -> list[Piece]:
    """The text as pieces which, joined, are the text again."""
    cut = segmenter() if spaceless_share(text) > SPACELESS_SHARE else None
    found: list[Piece] = []
    start = 0
    for begin, end in (*protected, (len(text), len(text))):
        if begin > start:
            found += _free(text[start:begin], cut)
        if end > begin:
            found.append(Piece(text[begin:end], False))
        start = end
    return found


def joined(parts: Sequence[Piece]) -> str:
    """The text that pieces make."""
    return "".join(part.text for part in parts)


def language_of(text: str, usual: str | None = None) -> str | None:
    """The language of a text: Chinese by its signs, others by their words, else `usual`.

    None for writing in Latin letters that is too short to tell where `usual` says nothing.
    """
    writing = script(text)
    if writing == "Han":
        return CHINESE
    if writing == "Latin":
        return language(text) or (usual if usual != CHINESE else None)
    return writing


def spaced(text: str) -> bool:
    """Whether words of this text stand apart by spaces."""
    return spaceless_share(text) <= SPACELESS_SHARE


@cache
def segmenter() -> Callable[[str], list[str]]:
    """How Chinese is cut into words: by the first of SEGMENTERS that is installed."""
    for name in SEGMENTERS:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        cut: Callable[[str], list[str]] = module.cut if name == "rjieba" else module.lcut
        return cut
    return list


def segmented_by() -> str:
    """How Chinese is cut, in words."""
    cut = segmenter()
    if cut is list:
        return "into single signs (pip install 'kilotune[chinese]' has words cut by rjieba)"
    return f"into words by {cut.__module__ or SEGMENTERS[0]}"


def _free(text: str, cut: Callable[[str], list[str]] | None) -> list[Piece]:
    found: list[Piece] = []
    start = 0
    for match in WORD.finditer(text):
        if match.start() > start:
            found.append(Piece(text[start : match.start()], False))
        start = match.end()
        if cut is None or match[0].isascii():
            found.append(Piece(match[0], True))
        else:
            found += [Piece(word, True) for word in cut(match[0])]
    if start < len(text):
        found.append(Piece(text[start:], False))
    return found
