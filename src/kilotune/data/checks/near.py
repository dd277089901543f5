"""Texts that nearly repeat another: MinHash with banding, then the exact Jaccard index.

Broder, "On the resemblance and containment of documents" (1997): of two sets of shingles, the share
of hash functions whose minimum is the same estimates |A ∩ B| / |A ∪ B|. Bands of such minima as
keys (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4) find the pairs
worth comparing without comparing all.
"""

import hashlib
import re
from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from kilotune.data.scripts import spaceless_share

Hashes = NDArray[np.uint64]

# Two texts are near duplicates from this Jaccard index of their shingles on: one word of thirteen
# exchanged, or one sign of nineteen in writing without spaces.
THRESHOLD = 0.7
# Shingles: pairs of words, or three signs where writing has no spaces between words.
WORDS, SIGNS = 2, 3
SPACELESS_SHARE = 0.3
# 24 bands of 5 minima find a pair at the threshold with probability 0.99, and one at 0.3 with 0.06.
BANDS, MINIMA = 24, 5
# A pair whose estimate is further below the threshold than chance allows is not compared exactly;
# the estimate from 120 minima has a standard deviation of 0.042 there.
SLACK = 0.15
# In a crowded bucket each text meets this many neighbours, ordered by the next band: the work
# stays linear when all texts are made from one template.
NEIGHBOURS = 4
# Shingles in more than a tenth of the texts (and 15) are a template's, and are not compared.
COMMON_SHARE, COMMON_LEAST = 0.1, 15

# What may stand around a word without making it another; "+" and "#" do (C, C++, C#).
PUNCTUATION = ".,;:!?…\"'()[]{}<>*_~`«»„“”‘’¡¿。，、！？；：「」『』《》（）—–"
NOT_LETTERS = re.compile(r"[\W_]+")
NUMBERS = re.compile(r"(?<![a-z\d])\d+")
CHUNK = 4096


def near_pairs(
    texts: Sequence[str], contexts: Sequence[Hashable] | None = None
) -> list[tuple[int, int]]:
    """Pairs i < j of texts whose shingles have a Jaccard index of at least THRESHOLD.

    The texts are in the form of `comparable`; those of different `contexts` are never a pair. Pairs
    that other pairs already link are left out, so the pairs are a forest. Texts that each have a
    number which the other lacks are one template filled twice, not near duplicates. Deterministic.
    """
    spaceless = [spaceless_share(text) > SPACELESS_SHARE for text in texts]
    words = [index for index, none in enumerate(spaceless) if not none]
    signs = [index for index, none in enumerate(spaceless) if none]
    found: list[tuple[int, int]] = []
    for members, shingler in ((words, _word_hashes), (signs, _sign_hashes)):

        def may_pair(i: int, j: int, members: list[int] = members) -> bool:
            a, b = members[i], members[j]
            together = contexts is None or contexts[a] == contexts[b]
            return together and not _other_numbers(texts[a], texts[b])

        hashes, lengths, size = shingler([texts[index] for index in members])
        pairs = _similar(*_shingles(hashes, lengths, size), may_pair)
        found += [(members[i], members[j]) for i, j in pairs]
    return sorted(found)


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


def _word_hashes(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64], int]:
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
    return hashes[hashes != 0], np.diff(bounds), WORDS


def _sign_hashes(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64], int]:
    plain = [NOT_LETTERS.sub("", text) for text in texts]
    points = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return points.astype(np.uint64), np.array([len(text) for text in plain], dtype=np.int64), SIGNS


def _shingles(
    hashes: Hashes, lengths: NDArray[np.int64], size: int
) -> tuple[Hashes, NDArray[np.int64]]:
    """The shingles of each text in turn and their counts; a shorter text is one shingle."""
    starts = np.cumsum(lengths) - lengths
    left = np.repeat(starts + lengths, lengths) - np.arange(len(hashes))
    combined = np.zeros(len(hashes), dtype=np.uint64)
    for step in range(size):
        following = np.where(left > step, np.roll(hashes, -step), np.uint64(0))
        combined = _mixed(combined + following)
    whole = np.repeat(np.minimum(lengths, size), lengths)
    kept = left >= whole
    counts = np.where(lengths > 0, np.maximum(lengths - size + 1, 1), 0)
    return _without_common(combined[kept], counts)


def _mixed(values: Hashes) -> Hashes:
    """Every bit depends on every bit (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _without_common(
    shingles: Hashes, counts: NDArray[np.int64]
) -> tuple[Hashes, NDArray[np.int64]]:
    """Leave out what stands in too many texts to tell them apart."""
    limit = max(COMMON_LEAST, COMMON_SHARE * len(counts))
    values, inverse, times = np.unique(shingles, return_inverse=True, return_counts=True)
    frequent = (times > limit)[inverse]
    owners = np.repeat(np.arange(len(counts)), counts)
    # Frequent by repetition in a few texts is not common: count each text once.
    once = np.unique(np.stack((inverse[frequent], owners[frequent])), axis=1)[0]
    common = (np.bincount(once, minlength=len(values)) > limit)[inverse]
    return shingles[~common], np.bincount(owners[~common], minlength=len(counts))


def _similar(
    shingles: Hashes, counts: NDArray[np.int64], may_pair: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """Candidate pairs that hold against the exact index, each linking two clusters."""
    members = np.flatnonzero(counts)
    if len(members) < 2:
        return
    bounds = np.concatenate(([0], np.cumsum(counts[members])))
    parents = list(range(len(members)))
    for i, j in _candidates(_signatures(shingles, bounds)):
        first, second = _root(parents, i), _root(parents, j)
        if first == second:
            continue
        one = set(shingles[bounds[i] : bounds[i + 1]].tolist())
        other = set(shingles[bounds[j] : bounds[j + 1]].tolist())
        shared = len(one & other)
        near = shared >= THRESHOLD * (len(one) + len(other) - shared)
        if near and may_pair(int(members[i]), int(members[j])):
            parents[second] = first
            yield int(members[i]), int(members[j])


def _signatures(shingles: Hashes, bounds: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The minimum of each hash function over each text's shingles, of shape (texts, functions)."""
    rng = np.random.default_rng(0)
    functions = BANDS * MINIMA
    factors = rng.integers(1, 2**63, functions, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**63, functions, dtype=np.uint64)
    count, most = len(bounds) - 1, np.iinfo(np.uint32).max
    signatures = np.full((count, functions), most, dtype=np.uint32)
    # Pieces of one size, whatever the texts' lengths, so that memory does not grow with them.
    for start in range(0, len(shingles), CHUNK):
        piece = shingles[start : start + CHUNK, None] * factors + offsets
        first = int(np.searchsorted(bounds, start, side="right")) - 1
        last = int(np.searchsorted(bounds, start + len(piece), side="left"))
        starts = np.maximum(bounds[first:last] - start, 0)
        minima = (np.minimum.reduceat(piece, starts, axis=0) >> np.uint64(32)).astype(np.uint32)
        signatures[first:last] = np.minimum(signatures[first:last], minima)
    return signatures


def _candidates(signatures: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Pairs that share a band and whose estimate comes near the threshold, in order."""
    count = len(signatures)
    keys = np.zeros((BANDS, count), dtype=np.uint64)
    for step in range(MINIMA):
        keys = _mixed(keys + signatures[:, step::MINIMA].T)
    pairs = []
    for band in range(BANDS):
        key = keys[band]
        order = np.lexsort((keys[(band + 1) % BANDS], key))
        for distance in range(1, min(NEIGHBOURS, count - 1) + 1):
            left, right = order[:-distance], order[distance:]
            same = key[left] == key[right]
            low, high = np.minimum(left, right)[same], np.maximum(left, right)[same]
            pairs.append(np.unique(low * count + high))
    unique = np.unique(np.concatenate(pairs))
    for start in range(0, len(unique), CHUNK):
        low, high = np.divmod(unique[start : start + CHUNK], count)
        estimate = (signatures[low] == signatures[high]).mean(axis=1)
        near = estimate >= THRESHOLD - SLACK
        yield from zip(low[near].tolist(), high[near].tolist(), strict=True)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _other_numbers(one: str, other: str) -> bool:
    first, second = set(NUMBERS.findall(one)), set(NUMBERS.findall(other))
    return bool(first - second) and bool(second - first)
