"""How a figure grows with the labels: measured on parts of them, and carried on by laws.

Of many labels what is missing falls as a power of their number, down to what no label mends; of few
nothing is learnt, and the figure stays near that of the commonest answer (Hestness et al., "Deep
Learning Scaling is Predictable, Empirically", 2017, figure 6). A logistic curve over the logarithm
of the rows has both ends. Parts of a few hundred rows do not tell its slope from its top, so none
is chosen: all on a grid count, each as much as it fits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from kilotune.evaluation.evidence import CONFIDENCE, Figure

Array = NDArray[np.float64]

# Powers that published curves have. The share of today's least error that no label mends: the
# larger, the less it is expected. Where between the ends today is, as logarithms of odds.
EXPONENTS = np.linspace(0.1, 1.0, 10)
FLOORS = np.linspace(0.0, 0.9, 10)
PLACES = np.linspace(-5.0, 5.0, 161)
# How far a curve strays from any such law, as a standard deviation for each doubling: within what
# was measured, and beyond it, where whoever labels draws other examples once. Chosen on film
# reviews, Reuters R8 and 20 Newsgroups; docs/advise.md says how often what came was within.
STRAYS, BEYOND = 0.01, 0.012
# The lowest figure is so far above the curve's lower end at least.
ABOVE = 0.02
# Where a normal distribution is looked at: the middles of as many parts of one probability.
MIDDLES = norm.ppf((np.arange(15) + 0.5) / 15)
# Laws that are less likely by this than the best are left out.
NEGLIGIBLE = 1e-7
TAIL = (1 - CONFIDENCE) / 2
# Times as many labels that are looked ahead to: none needs more that are named.
AHEAD = (2, 4)
# Gains whose price in labels is said.
WANTED = (0.02, 0.05)
# The least standard error of a point: of two rounds that agree by chance none would be left.
SURE = 1e-3


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The figure of a system that learnt from so many rows, with its 95% interval."""

    rows: int
    figure: Figure


@dataclass(frozen=True, slots=True)
class Outlook:
    """What so many labels in all would add to the figure of today, with a 95% interval."""

    rows: int
    gain: Figure


@dataclass(frozen=True, slots=True)
class Price:
    """About how many labels in all a gain takes; None where the end is not in sight."""

    gain: float
    rows: int
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The points of a system's curve, and what more labels than the `rows` of today would add."""

    system: str
    metric: str
    rows: int
    points: tuple[CurvePoint, ...]
    outlooks: tuple[Outlook, ...]
    prices: tuple[Price, ...]

    @property
    def doubled(self) -> Figure:
        """What as many labels again would add."""
        return self.outlooks[0].gain


def learning_curve(
    system: str,
    metric: str,
    scores: Mapping[int, Sequence[Sequence[float]]],
    *,
    rows: int,
    chance: float,
) -> LearningCurve:
    """The curve of `scores`, carried on from `rows` labels.

    Of each size, in rows learnt from, they hold for each round the score of every example, by a
    model that has not seen it; a round's mean is the figure. There must be two sizes at least.
    `chance` is the figure of who has learnt nothing.
    """
    sizes = sorted(scores)
    each = np.array([scores[size] for size in sizes], dtype=float)  # sizes, rounds, examples
    covariance = _covariance(each)
    values = each.mean(axis=(1, 2))
    laws = _Laws.of(np.array(sizes) / rows, values, covariance, chance)
    reach = norm.ppf(1 - TAIL) * np.sqrt(np.diag(covariance))
    points = [
        CurvePoint(size, Figure(float(value), float(value - by), float(value + by)))
        for size, value, by in zip(sizes, values, reach, strict=True)
    ]
    outlooks = [Outlook(times * rows, laws.gain(times)) for times in AHEAD]
    prices = [price for wanted in WANTED if (price := laws.price(wanted, rows))]
    return LearningCurve(system, metric, rows, tuple(points), tuple(outlooks), tuple(prices))


def _covariance(each: Array) -> Array:
    """That of the sizes' figures, of scores (sizes, rounds, examples): shape (sizes, sizes).

    The examples are shared by all sizes; what was learnt from is another in each round.
    """
    sizes, rounds, examples = each.shape
    covariance: Array = np.atleast_2d(np.cov(each.mean(axis=1))) / examples
    drawn = each.mean(axis=2).var(axis=1, ddof=1) / rounds if rounds > 1 else np.zeros(sizes)
    return covariance + np.diag(drawn + SURE**2)


@dataclass(frozen=True, slots=True)
class _Laws:
    """Laws that may have made a curve, each weighed; sizes are in multiples of today's rows.

    Each is chance + (top - chance) / (1 + exp(-place) * size^-exponent).
    """

    chance: float
    exponent: Array
    top: Array
    place: Array
    weight: Array

    @classmethod
    def of(cls, sizes: Array, values: Array, covariance: Array, chance: float) -> "_Laws":
        """Those that fit `values` at `sizes`, (sizes), as sure as `covariance` says."""
        shares, exponents, places = (
            grid.ravel() for grid in np.meshgrid(FLOORS, EXPONENTS, PLACES, indexing="ij")
        )
        tops = 1 - shares * (1 - values.max())
        every = cls(min(chance, values.min() - ABOVE), exponents, tops, places, 1 - shares)
        doublings = np.log2(sizes.max() / sizes)
        strays = STRAYS**2 * np.minimum(doublings[:, None], doublings[None])
        left = values - np.stack([every.at(size) for size in sizes], axis=1)
        fit = -np.einsum("ls,st,lt->l", left, np.linalg.inv(covariance + strays), left) / 2
        weight = every.weight * np.exp(fit - fit.max())
        kept = weight > NEGLIGIBLE * weight.max()
        found = (exponents[kept], tops[kept], places[kept], weight[kept] / weight[kept].sum())
        return cls(every.chance, *found)

    def at(self, size: float) -> Array:
        """The figure by each law, (laws), of so many times today's rows."""
        odds = np.exp(self.place) * size**self.exponent
        figures: Array = self.chance + (self.top - self.chance) * odds / (1 + odds)
        return figures

    def gain(self, times: float) -> Figure:
        """What `times` as many rows as today would add."""
        strays = BEYOND * np.log2(times) ** 0.5 * MIDDLES
        gains = (self.at(times) - self.at(1.0))[:, None] + strays
        weight = np.repeat(self.weight / len(MIDDLES), len(MIDDLES))
        low, value, high = _quantiles(gains.ravel(), weight)
        return Figure(value, low, high)

    def price(self, gain: float, rows: int) -> Price | None:
        """The rows that a gain takes; None where it most likely takes more than are looked to."""
        share = (self.at(1.0) + gain - self.chance) / (self.top - self.chance)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.where(share < 1, share / (1 - share), np.inf)
            times = (odds / np.exp(self.place)) ** (1 / self.exponent)
        low, value, high = _quantiles(times, self.weight)
        if value > AHEAD[-1]:
            return None
        most = round(high * rows) if high <= AHEAD[-1] else None
        return Price(gain, round(value * rows), round(low * rows), most)


def _quantiles(values: Array, weight: Array) -> tuple[float, float, float]:
    """The median of weighted values between the ends of their 95% interval."""
    order = np.argsort(values)
    upto = np.cumsum(weight[order])
    places = np.searchsorted(upto, (TAIL, 0.5, 1 - TAIL)).clip(max=len(order) - 1)
    low, middle, high = values[order][places]
    return float(low), float(middle), float(high)
