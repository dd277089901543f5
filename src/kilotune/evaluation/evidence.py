"""How sure a figure is: intervals and paired tests on the same examples."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Tag
from scipy.stats import binomtest, norm
from scipy.stats import t as student

Array = NDArray[np.float64]
Average = Literal["macro", "weighted"]

CONFIDENCE = 0.95
# The fewest examples of which a unanimous result differs from chance: 2 / 2^6 is 3%, 2 / 2^5 is 6%.
ENOUGH = 6
# Resamples that differ by rounding alone are the same.
SAME = 1e-9
# Of larger values the bootstrap's third powers would overflow.
LARGEST = 1e100
# What a record of an earlier version does not say of a figure that is none.
NOT_FINITE = "not a finite number"


class Resampling(TypedDict):
    """What the bootstrap is told: how many resamples, and the seed they are drawn by."""

    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A value in [0, 1] with its 95% interval, all finite: what is not is Unavailable."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        # JSON would have null for it, and nothing would say why.
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError(f"no figure: {self.value} [{self.low}, {self.high}]")

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A figure that there is none of, and why: no number stands in for it."""

    reason: str = NOT_FINITE
    value: None = None
    low: None = None
    high: None = None

    def __str__(self) -> str:
        return "unavailable"


def _kind(read: Any) -> str:
    """Which of the two is meant, be it an object or as JSON has it."""
    value = read.get("value") if isinstance(read, Mapping) else getattr(read, "value", None)
    return "unavailable" if value is None else "figure"


Estimate = Annotated[
    Annotated[Figure, Tag("figure")] | Annotated[Unavailable, Tag("unavailable")],
    Discriminator(_kind),
]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two systems on the same examples: how often each alone was right, and the p-value."""

    wins: int
    losses: int
    ties: int
    p_value: float


def wilson(successes: int, total: int, confidence: float = CONFIDENCE) -> Figure:
    """A proportion with Wilson's score interval (Wilson 1927), never of zero width."""
    interval = binomtest(successes, total).proportion_ci(confidence, method="wilson")
    return Figure(successes / total, float(interval.low), float(interval.high))


def share(successes: int, total: int) -> Estimate:
    """The share of examples that are right, with Wilson's interval."""
    return too_few(total) or wilson(successes, total)


def mean_figure(values: Sequence[float], *, samples: int, seed: int) -> Estimate:
    """The mean of per-example scores with a BCa bootstrap interval.

    Where every resample gives the same value, the interval of one in [0, 1] is Wilson's for that
    proportion, and else as wide as Wilson's around a half.
    """
    scores = np.asarray(values, dtype=float)
    if none := too_few(len(scores)) or not_finite(scores):
        return none
    value = float(scores.mean())
    low, high = _bca(_resampled_means(scores, samples, seed), value, scores - value)
    if high - low < SAME and 0 <= value <= 1:
        fallback = wilson(round(value * len(scores)), len(scores))
        low, high = fallback.low, fallback.high
    return _of_a_width(value, low, high, len(scores))


def paired_gain(
    before: Sequence[float], after: Sequence[float], *, samples: int, seed: int
) -> Estimate:
    """The mean gain of `after` over `before` on the same examples, with a paired BCa bootstrap.

    In [-1, 1]. (Efron and Tibshirani 1993, section 16.2.) Where all gains are the same, the
    bootstrap knows nothing; the interval then is as wide as Wilson's around a half.
    """
    gains = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if none := too_few(len(gains)) or not_finite(gains):
        return none
    value = float(gains.mean())
    low, high = _bca(_resampled_means(gains, samples, seed), value, gains - value)
    return _of_a_width(value, low, high, len(gains))


def f1_figure(
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    *,
    average: Average = "macro",
    samples: int,
    seed: int,
) -> Estimate:
    """F1 over the classes with a BCa bootstrap interval over examples.

    `weighted` weighs each class by how many examples have it. Where every resample gives the same
    value (all right, or all wrong) the bootstrap knows nothing; the interval is then Wilson's for
    accuracy.
    """
    total = len(references)
    if few := too_few(total):
        return few
    cells, counts = _cells(references, [predictions], labels)

    def statistic(drawn: NDArray[np.int64]) -> Array:
        return _f1_of(_confusions(drawn, cells[0], cells[1], len(labels)), average)

    value, low, high = _cell_interval(statistic, counts, samples, seed)
    if high - low < SAME:
        right = sum(r == p for r, p in zip(references, predictions, strict=True))
        fallback = wilson(right, total)
        low, high = fallback.low, fallback.high
    return Figure(value, min(low, value), max(high, value))


def macro_f1_gain(
    references: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    labels: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> Estimate:
    """The gain in macro-F1 on the same examples, with a paired BCa bootstrap."""
    if few := too_few(len(references)):
        return few
    cells, counts = _cells(references, [before, after], labels)

    def statistic(drawn: NDArray[np.int64]) -> Array:
        first, second = (
            _f1_of(_confusions(drawn, cells[0], said, len(labels)), "macro") for said in cells[1:]
        )
        return second - first

    return _of_a_width(*_cell_interval(statistic, counts, samples, seed), len(references))


def metric_figure(
    metric: Callable[[NDArray[np.int64]], float], total: int, *, samples: int, seed: int
) -> Estimate:
    """Any metric of rows of examples (their numbers, repeated ones included), by BCa bootstrap.

    The metric is computed once a resample, and once without each example for the acceleration.
    """
    if few := too_few(total):
        return few
    every = np.arange(total)
    rng = np.random.default_rng(seed)
    value = metric(every)
    drawn = np.array([metric(rng.integers(0, total, total)) for _ in range(samples)])
    left_out = np.array([metric(np.delete(every, index)) for index in every])
    if none := not_finite(np.array([value, *drawn, *left_out])):
        return none
    low, high = _bca(drawn, value, left_out.mean() - left_out)
    return _of_a_width(value, low, high, total)


def too_few(total: int) -> Unavailable | None:
    """Why there is no figure of so many examples, if there is none."""
    if total >= ENOUGH:
        return None
    return Unavailable(f"{total} examples; at least {ENOUGH} are needed")


def not_finite(values: Array) -> Unavailable | None:
    """Why there is no figure of these values, if there is none."""
    bad = int((~(np.abs(values) <= LARGEST)).sum())  # NaN is not less than anything
    if not bad:
        return None
    return Unavailable(
        f"{bad} of {values.size} values are not finite, or too large to calculate with"
    )


def _of_a_width(value: float, low: float, high: float, total: int) -> Figure:
    if high - low < SAME:
        half = wilson(total // 2, total).high - 0.5
        low, high = value - half, value + half
    return Figure(value, min(low, value), max(high, value))


def _resampled_means(values: Array, samples: int, seed: int) -> Array:
    """Shape (samples,)."""
    # Equal values are one cell: of right and wrong answers, two.
    cells, counts = np.unique(values, return_counts=True)
    drawn = _multinomial(counts, samples, seed)
    means: Array = drawn @ cells / len(values)
    return means


def _multinomial(counts: NDArray[np.int64], samples: int, seed: int) -> NDArray[np.int64]:
    """Shape (samples, cells): resampling examples is drawing their cells from a multinomial."""
    total = counts.sum()
    return np.random.default_rng(seed).multinomial(total, counts / total, size=samples)


def _cells(
    references: Sequence[str], systems: Sequence[Sequence[str]], labels: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What was met and answered, shape (1 + systems, cells), and how often, shape (cells,).

    Whatever is no label shares one last number: wrong, and of no class.
    """
    index = {label: position for position, label in enumerate(labels)}
    codes = [[index.get(name, len(labels)) for name in names] for names in (references, *systems)]
    return np.unique(np.array(codes), axis=1, return_counts=True)


def _confusions(
    drawn: NDArray[np.int64], truth: NDArray[np.int64], said: NDArray[np.int64], classes: int
) -> Array:
    """Confusion matrices, shape (samples, classes + 1, classes + 1), of counted cells."""
    size = classes + 1
    places = np.zeros((len(truth), size * size))
    places[np.arange(len(truth)), truth * size + said] = 1
    matrices: Array = (drawn @ places).reshape(len(drawn), size, size)
    return matrices


def _f1_of(counts: Array, average: Average) -> Array:
    """F1 of confusion matrices, as in metrics: macro over the classes that are met or named."""
    hits = np.diagonal(counts, axis1=1, axis2=2)[:, :-1]
    support = counts.sum(axis=2)[:, :-1]
    met = support + counts.sum(axis=1)[:, :-1]
    scores = np.divide(2 * hits, met, out=np.zeros(hits.shape), where=met > 0)
    weights = support if average == "weighted" else met > 0
    result: Array = (scores * weights).sum(axis=1) / np.maximum(1, weights.sum(axis=1))
    return result


def _cell_interval(
    statistic: Callable[[NDArray[np.int64]], Array],
    counts: NDArray[np.int64],
    samples: int,
    seed: int,
) -> tuple[float, float, float]:
    """A statistic of counted cells, shape (samples, cells) to (samples,), and its BCa interval."""
    value = float(statistic(counts[None])[0])
    without = statistic(counts - np.eye(len(counts), dtype=counts.dtype))
    influence = np.repeat(value - without, counts)
    low, high = _bca(statistic(_multinomial(counts, samples, seed)), value, influence)
    return value, low, high


def _bca(resampled: Array, value: float, influence: Array) -> tuple[float, float]:
    """The BCa interval (Efron 1987) of `value` from its resamples.

    The bias correction is the share of resamples below the value, the acceleration a sixth of the
    skewness of the examples' `influence`. Student's quantile in the normal's place, a little
    further out, makes up for the spread that few examples hide (Hesterberg 2015, section 5.3).
    """
    total = len(influence)
    below = np.mean(resampled < value - SAME) + np.mean(np.abs(resampled - value) <= SAME) / 2
    edge = 1 / (2 * len(resampled))
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    size = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * size**1.5) if size > 0 else 0.0
    reach = student.ppf((1 + CONFIDENCE) / 2, total - 1) * (total / (total - 1)) ** 0.5
    moved = bias + np.array([-reach, reach])
    levels = norm.cdf(bias + moved / np.maximum(SAME, 1 - acceleration * moved))
    low, high = np.quantile(resampled, levels)
    return float(low), float(high)


def difference(first: Figure, second: Figure) -> Figure:
    """`first` minus `second`, of two independent sets (Newcombe 1998, method 10)."""
    value = first.value - second.value
    low = np.hypot(first.value - first.low, second.high - second.value)
    high = np.hypot(first.high - first.value, second.value - second.low)
    return Figure(value, float(value - low), float(value + high))


def sign_test(before: Sequence[float], after: Sequence[float]) -> PairedTest:
    """The exact sign test of scores of the same examples: a win is one that scores more `after`.

    Of answers that are right or wrong it is McNemar's exact test (McNemar 1947).
    """
    pairs = list(zip(before, after, strict=True))
    wins = sum(a > b for b, a in pairs)
    losses = sum(b > a for b, a in pairs)
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
