"""Texts as sets of shingles: pairs of words, or three signs where writing has no spaces."""

import hashlib
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

# Shingles: pairs of words, or three signs where writing has no spaces between words.
WORDS, SIGNS = 2, 3

# What may stand around a word without making it another; "+" and "#" do (C, C++, C#).
PUNCTUATION = ".,;:!?…\"'()[]{}<>*_~`«»„“”‘’¡¿。，、！？；：「」『』《》（）—–"
NOT_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Shingled:
    """The different shingles of some texts: `values` of each in turn, and `counts` of them.

    `texts` are the texts' numbers, and `contexts` a number of what stands around each.
    """

    texts: NDArray[np.int64]
    contexts: Hashes
    values: Hashes
    counts: Counts

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The row of the text that each of `values` belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def bounds(self) -> NDArray[np.int64]:
        """Where each text's values begin, and the end of the last."""
        return np.concatenate(([0], np.cumsum(self.counts)))

    def rows(self, chosen: NDArray[np.bool_]) -> "Shingled":
        """The texts of the rows that are `chosen`."""
        values = self.values[np.repeat(chosen, self.counts)]
        return Shingled(self.texts[chosen], self.contexts[chosen], values, self.counts[chosen])

    def only(self, kept: NDArray[np.bool_]) -> "Shingled":
        """The same texts with those of their values that are `kept`."""
        counts = np.bincount(self.owners[kept], minlength=len(self))
        return Shingled(self.texts, self.contexts, self.values[kept], counts)


def shingled(texts: Sequence[str], contexts: Hashes, *, spaceless: bool) -> Shingled:
    """The shingles of `texts`, which are in the form of `comparable`; a short text is one."""
    hashes, lengths = _sign_hashes(texts) if spaceless else _word_hashes(texts)
    size = SIGNS if spaceless else WORDS
    starts = np.cumsum(lengths) - lengths
    left = np.repeat(starts + lengths, lengths) - np.arange(len(hashes))
    combined = np.zeros(len(hashes), dtype=np.uint64)
    for step in range(size):
        following = np.where(left > step, np.roll(hashes, -step), np.uint64(0))
        combined = mixed(combined + following)
    whole = np.repeat(np.minimum(lengths, size), lengths)
    counts = np.where(lengths > 0, np.maximum(lengths - size + 1, 1), 0)
    return _different(combined[left >= whole], counts, contexts)


def mixed(values: Hashes) -> Hashes:
    """Every bit depends on every bit (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class _Vocabulary(dict[str, int]):
    """A number for each word as it is written; `hashes` are of the word without punctuation."""

    def __init__(self) -> None:
        super().__init__()
        self.hashes = array("Q")

    def __missing__(self, token: str) -> int:
        word = token.strip(PUNCTUATION)
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        # Nothing but punctuation is no word: 0.
        self.hashes.append(int.from_bytes(digest, "little") | 1 if word else 0)
        self[token] = number = len(self)
        return number


def _word_hashes(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    vocabulary = _Vocabulary()
    numbers = array("I")
    ends = array("Q")
    for text in texts:
        numbers.extend(map(vocabulary.__getitem__, text.split()))
        ends.append(len(numbers))
    table = np.frombuffer(vocabulary.hashes, dtype=np.uint64) if vocabulary else np.zeros(0, "u8")
    hashes = table[np.frombuffer(numbers, dtype=np.uint32)] if len(numbers) else table
    kept = np.concatenate(([0], np.cumsum(hashes != 0)))
    bounds = kept[np.concatenate(([0], np.array(ends, dtype=np.int64)))]
    return hashes[hashes != 0], np.diff(bounds)


def _sign_hashes(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    plain = [NOT_LETTERS.sub("", text) for text in texts]
    points = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return points.astype(np.uint64), np.array([len(text) for text in plain], dtype=np.int64)


def _different(shingles: Hashes, counts: Counts, contexts: Hashes) -> Shingled:
    """Each shingle of a text once."""
    owners = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((shingles, owners))
    values, owners = shingles[order], owners[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
    counts = np.bincount(owners[new], minlength=len(counts))
    return Shingled(np.arange(len(counts)), contexts, values[new], counts)
