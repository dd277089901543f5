"""Texts that nearly repeat another: candidates by MinHash, then the exact Jaccard index.

What many texts share tells them apart badly: behind one long instruction, short texts would all
look alike. So shingles in many texts are left out of the comparison. But where many texts are
copies of one, all their shingles are in many texts; `_crowds` are judged for this: whether they
fill in one form, or are copies.
"""

import re
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from kilotune.data.checks.minhash import Candidates, candidates
from kilotune.data.checks.shingles import Hashes, Shingled, shingled
from kilotune.data.scripts import spaceless_share

# Two texts are near duplicates from this Jaccard index of their shingles on: one word of thirteen
# exchanged, or one sign of nineteen in writing without spaces.
THRESHOLD = 0.7
SPACELESS_SHARE = 0.3
# A pair whose estimate is further below the threshold than chance allows is not compared exactly.
SLACK = 0.15
# Shingles in more than a tenth of the texts (and 15) are common, and are compared in crowds alone:
# of texts that are alike and made of common shingles by more than a tenth.
COMMON_SHARE, COMMON_LEAST = 0.1, 15
CROWDED = 0.1
# A form is what four fifths of a crowd share. Copies that were edited here and there lack pieces of
# it, nearly as many as they have of their own; what is filled in a form lacks none.
FORM_SHARE, LACKING = 0.8, 0.25
# A text that fills in a form has this many shingles of its own, that less than half of the crowd
# have. Where most texts of a file are in one form, fewer will do: one word, to classify it.
OWN_SHARE, OWN_LEAST = 0.5, 5

NUMBERS = re.compile(r"(?<![a-z\d])\d+")


def near_pairs(
    texts: Sequence[str], contexts: Sequence[Hashable] | None = None
) -> list[tuple[int, int]]:
    """Pairs i < j of texts whose shingles have a Jaccard index of at least THRESHOLD.

    The texts are in the form of `comparable`; those of different `contexts` are never a pair. Pairs
    that other pairs already link are left out, so the pairs are a forest. Texts that each have a
    number which the other lacks are one template filled twice, not near duplicates, and so are
    those that fill in one form (`_form`). Deterministic.
    """
    numbers: dict[Hashable, int] = {}
    around = [numbers.setdefault(c, len(numbers)) for c in contexts or [None] * len(texts)]
    spaceless = [spaceless_share(text) > SPACELESS_SHARE for text in texts]
    found: list[tuple[int, int]] = []
    for signs in (False, True):
        members = [index for index, none in enumerate(spaceless) if none == signs]
        chosen = [texts[index] for index in members]
        places = np.array([around[index] for index in members], dtype=np.uint64)
        forest = _Forest(chosen)
        forest.grow(shingled(chosen, places, spaceless=signs))
        found += [(members[min(pair)], members[max(pair)]) for pair in forest.links]
    return sorted(found)


class _Forest:
    """Which texts are near which: the `links` found so far, none between two linked already."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.links: list[tuple[int, int]] = []
        self._parents = list(range(len(texts)))
        self._numbers: dict[int, set[str]] = {}

    def grow(self, sets: Shingled) -> None:
        """Link what is near in `sets`: without their common shingles, then crowd by crowd."""
        limit = max(COMMON_LEAST, COMMON_SHARE * len(sets))
        _, inverse, times = np.unique(sets.values, return_inverse=True, return_counts=True)
        common = (times > limit)[inverse]
        rest = sets.only(~common)
        self._link(candidates(rest, THRESHOLD - SLACK), rest, sets)
        shared = np.bincount(sets.owners[common], minlength=len(sets))
        crowded = shared > CROWDED * sets.counts
        rarer = sets.only(~(times > 2 * limit)[inverse]).rows(crowded)
        for inside, pairs, large in _crowds(sets.rows(crowded), limit):
            crowd = sets.rows(crowded).rows(inside)
            form = _form(crowd, len(sets)) if large else None
            if not large:
                self._link(pairs, crowd, rarer.rows(inside))
            elif form is None:
                self._link(pairs, crowd)
            elif form.any():
                self.grow(crowd.only(~form))

    def _link(self, pairs: Candidates, *views: Shingled) -> None:
        """Link pairs of rows that are near in all of `views`, which have the same rows."""
        texts, bounds = views[0].texts.tolist(), [view.bounds.tolist() for view in views]
        for row, other in zip(pairs.low.tolist(), pairs.high.tolist(), strict=True):
            i, j = texts[row], texts[other]
            first, second = self._root(i), self._root(j)
            if first == second or self._other_numbers(i, j):
                continue
            if all(_near(v.values, b, row, other) for v, b in zip(views, bounds, strict=True)):
                self._parents[second] = first
                self.links.append((i, j))

    def _root(self, index: int) -> int:
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def _other_numbers(self, i: int, j: int) -> bool:
        for index in (i, j):
            if index not in self._numbers:
                self._numbers[index] = set(NUMBERS.findall(self.texts[index]))
        first, second = self._numbers[i], self._numbers[j]
        return bool(first - second) and bool(second - first)


def _near(values: Hashes, bounds: Sequence[int], row: int, other: int) -> bool:
    one = set(values[bounds[row] : bounds[row + 1]].tolist())
    two = set(values[bounds[other] : bounds[other + 1]].tolist())
    shared = len(one & two)
    return 0 < shared >= THRESHOLD * (len(one) + len(two) - shared)


def _crowds(sets: Shingled, limit: float) -> Iterator[tuple[NDArray[np.bool_], Candidates, bool]]:
    """Each set of rows of which every one seems near to another, its pairs, whether it is large.

    It is where all or most of `limit` are in it: half, as estimates can miss some of a crowd. The
    shingles of smaller ones are common by reason of texts outside; these come all together.
    """
    pairs = candidates(sets, THRESHOLD - SLACK)
    near = pairs.estimate >= THRESHOLD
    ends = (pairs.low[near], pairs.high[near])
    graph = coo_matrix((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(len(sets), len(sets)))
    labels = connected_components(graph, directed=False)[1]
    sizes = np.bincount(labels, minlength=1)
    large = sizes > limit / 2
    few = ~large[labels] & (sizes[labels] > 1)
    for inside in (few, *(labels == label for label in np.flatnonzero(large))):
        if not inside.any():
            continue
        place = np.cumsum(inside) - 1
        both = inside[pairs.low] & inside[pairs.high]
        low, high, estimate = (side[both] for side in pairs)
        yield inside, Candidates(place[low], place[high], estimate), inside is not few


def _form(crowd: Shingled, texts: int) -> NDArray[np.bool_] | None:
    """Which values of a crowd, of so many `texts`, are of the form it fills in; None for copies."""
    _, inverse, times = np.unique(crowd.values, return_inverse=True, return_counts=True)
    shares = times / len(crowd)
    in_form = (shares >= FORM_SHARE)[inverse]
    own = np.bincount(crowd.owners, shares[inverse] < OWN_SHARE, minlength=len(crowd))
    lacking = int((shares >= FORM_SHARE).sum()) * len(crowd) - int(in_form.sum())
    if lacking >= LACKING * own.sum():
        return None
    filled = np.median(own) >= OWN_LEAST or 2 * len(crowd) > texts
    return in_form if filled else None
