"""Which of many unlabelled texts a person should label next.

Settles, "Active Learning Literature Survey" (2009), is an overview of what is chosen by.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from kilotune.evaluation.baselines import blank, vectorizer

Array = NDArray[np.float64]

# The diverse are chosen among so many times as many of the most uncertain (Zhdanov 2019, section 4,
# has 10 to 50).
SHORTLIST = 10


def margin(probabilities: ArrayLike) -> Array:
    """1 less the lead of the likeliest of K labels over the next, shape (n, K) to (n,).

    In [0, 1], 1 for two that are equally likely (Scheffer, Decomain and Wrobel 2001).
    """
    ordered = np.sort(np.asarray(probabilities, dtype=np.float64), axis=1)
    lead: Array = ordered[:, -1] - ordered[:, -2]
    return 1 - lead


def entropy(probabilities: ArrayLike) -> Array:
    """Shannon's entropy of K labels as a share of its greatest, shape (n, K) to (n,)."""
    likely = np.asarray(probabilities, dtype=np.float64)
    logs = np.log(likely, out=np.zeros_like(likely), where=likely > 0)
    found: Array = -(likely * logs).sum(axis=1) / np.log(likely.shape[1])
    return found


def most_uncertain(uncertainty: ArrayLike, count: int) -> list[int]:
    """The `count` most uncertain, the most uncertain first, of equals the first."""
    order: list[int] = np.argsort(-np.asarray(uncertainty), kind="stable").tolist()
    return order[:count]


def diverse(
    texts: Sequence[str], uncertainty: ArrayLike, count: int, *, seed: int
) -> dict[int, int]:
    """`count` of the most uncertain that are unlike each other, the most uncertain first.

    Zhdanov, "Diverse mini-batch Active Learning" (2019), algorithm 1: of the `SHORTLIST` times
    `count` most uncertain, `count` clusters are made by k-means, each text weighed by its
    uncertainty, and the text nearest to each centre is chosen. Texts are compared by TF-IDF. The
    values are how many texts of the shortlist each one stands for. Texts without a letter or sign
    to compare (images alone) are chosen by uncertainty.
    """
    scores = np.asarray(uncertainty, dtype=np.float64)
    shortlist = most_uncertain(scores, SHORTLIST * count)
    said = [texts[index] for index in shortlist]
    if len(shortlist) <= count or blank(said):
        return dict.fromkeys(shortlist[:count], 1)
    vectors = vectorizer(said).fit_transform(said)
    weights = np.maximum(scores[shortlist], np.finfo(np.float64).tiny)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different texts than clusters
        clusters = KMeans(count, n_init=10, random_state=seed).fit(vectors, sample_weight=weights)
    far = clusters.transform(vectors).min(axis=1)
    chosen: dict[int, int] = {}
    for number in range(count):
        members = np.flatnonzero(clusters.labels_ == number)
        if len(members):
            chosen[shortlist[members[far[members].argmin()]]] = len(members)
    for index in shortlist:  # where texts were equal, there were fewer clusters
        if len(chosen) < count:
            chosen.setdefault(index, 1)
    order = sorted(chosen, key=lambda index: (-scores[index], index))
    return {index: chosen[index] for index in order}
