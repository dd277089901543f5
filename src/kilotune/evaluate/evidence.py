"""How sure a figure is: intervals and paired tests on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from kilotune.evaluate.metrics import macro_f1

CONFIDENCE = 0.95
# Fewer examples than this give no interval worth the name, and no value either.
ENOUGH = 10
# Resamples that differ by rounding alone are the same.
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Figure:
    """A value in [0, 1] with its 95% interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: "Figure") -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A figure that there are too few examples for: no number stands in for it."""

    reason: str
    value: None = None
    low: None = None
    high: None = None

    def __str__(self) -> str:
        return "unavailable"


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two systems on the same examples: how often each alone was right, and the p-value."""

    wins: int
    losses: int
    ties: int
    p_value: float


def wilson(successes: int, total: int) -> Figure:
    """A proportion with Wilson's score interval (Wilson 1927), never of zero width."""
    interval = binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return Figure(successes / total, float(interval.low), float(interval.high))


def mean_figure(values: Sequence[float], *, samples: int, seed: int) -> Figure:
    """The mean of per-example scores in [0, 1] with a percentile bootstrap interval.

    Where every resample gives the same value, the interval is Wilson's for that proportion.
    """
    scores = np.asarray(values, dtype=float)
    value = float(scores.mean())
    low, high = _bootstrap_means(scores, samples, seed)
    if high - low < SAME:
        fallback = _wilson_of(value, len(scores))
        low, high = min(fallback.low, value), max(fallback.high, value)
    return Figure(value, low, high)


def paired_gain(
    before: Sequence[float], after: Sequence[float], *, samples: int, seed: int
) -> Figure:
    """The mean gain of `after` over `before` on the same examples, with a paired bootstrap.

    In [-1, 1]. (Efron and Tibshirani 1993, section 16.2.) Where all gains are the same, the
    bootstrap knows nothing; the interval then is as wide as Wilson's around a half.
    """
    gains = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    value = float(gains.mean())
    low, high = _bootstrap_means(gains, samples, seed)
    if high - low < SAME:
        half = _wilson_of(0.5, len(gains)).high - 0.5
        low, high = value - half, value + half
    return Figure(value, low, high)


def _bootstrap_means(values: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=samples)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn @ values / len(values), [tail, 1 - tail])
    return float(low), float(high)


def _wilson_of(share: float, total: int) -> Figure:
    return wilson(round(share * total), total)


def macro_f1_figure(
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> Figure:
    """Macro-F1 with a percentile bootstrap interval over examples (Efron 1979).

    Resampling examples is drawing the cells of the confusion matrix from a multinomial, so all
    resamples are one array. Where every resample gives the same value (all right, or all wrong)
    the bootstrap knows nothing; the interval is then Wilson's for accuracy.
    """
    value = macro_f1(references, predictions, labels)
    # Whatever is no label shares one last column: wrong, and of no class.
    index = {label: position for position, label in enumerate(labels)}
    size = len(labels) + 1
    cells = np.zeros((size, size))
    for reference, prediction in zip(references, predictions, strict=True):
        cells[index.get(reference, size - 1), index.get(prediction, size - 1)] += 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(references), cells.ravel() / cells.sum(), size=samples)
    values = _macro_f1_of(drawn.reshape(samples, size, size))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    if high - low < SAME:
        fallback = wilson(
            sum(r == p for r, p in zip(references, predictions, strict=True)), len(references)
        )
        low, high = min(fallback.low, value), max(fallback.high, value)
    return Figure(value, float(low), float(high))


def _macro_f1_of(counts: np.ndarray) -> np.ndarray:
    """Macro-F1 of confusion matrices, shape (samples, classes + 1, classes + 1), as in metrics."""
    hits = np.diagonal(counts, axis1=1, axis2=2)[:, :-1]
    met = counts.sum(axis=2)[:, :-1] + counts.sum(axis=1)[:, :-1]
    scores = np.divide(2 * hits, met, out=np.zeros(hits.shape), where=met > 0)
    result: np.ndarray = scores.sum(axis=1) / np.maximum(1, (met > 0).sum(axis=1))
    return result


def difference(first: Figure, second: Figure) -> Figure:
    """`first` minus `second`, of two independent sets (Newcombe 1998, method 10)."""
    value = first.value - second.value
    low = np.hypot(first.value - first.low, second.high - second.value)
    high = np.hypot(first.high - first.value, second.value - second.low)
    return Figure(value, float(value - low), float(value + high))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> PairedTest:
    """McNemar's exact test (McNemar 1947) of which answers were right before and after.

    A win is an example that is right `after` alone.
    """
    pairs = list(zip(before, after, strict=True))
    wins = sum(a and not b for b, a in pairs)
    losses = sum(b and not a for b, a in pairs)
    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return PairedTest(wins, losses, len(pairs) - wins - losses, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected (Holm 1979), in the order they were given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected
