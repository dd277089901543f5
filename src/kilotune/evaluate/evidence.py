"""How sure a figure is: intervals and paired tests on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from kilotune.evaluate.metrics import macro_f1

CONFIDENCE = 0.95


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


def accuracy_figure(references: Sequence[str], predictions: Sequence[str]) -> Figure:
    """Accuracy with its Wilson interval."""
    right = sum(r == p for r, p in zip(references, predictions, strict=True))
    return wilson(right, len(references))


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
    if low == high:
        fallback = accuracy_figure(references, predictions)
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


def mcnemar(references: Sequence[str], before: Sequence[str], after: Sequence[str]) -> PairedTest:
    """McNemar's exact test (McNemar 1947) of `after` against `before`; a win is `after` alone."""
    triples = list(zip(references, before, after, strict=True))
    wins = sum(a == r != b for r, b, a in triples)
    losses = sum(b == r != a for r, b, a in triples)
    p_value = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    return PairedTest(wins, losses, len(triples) - wins - losses, p_value)
