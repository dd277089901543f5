"""Whether a change is to be adopted: two systems on the same examples, over several seeds.

Everything that chooses on validation asks here: decoding, augmentation, ablation, comparison of
runs, pseudo-labels. The rule: adopted when the gain's interval excludes zero, or when the change is
simpler or cheaper and not worse by more than one point. Seeds are part of the noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

from kilotune.errors import KilotuneError, some
from kilotune.evaluation.evidence import (
    CONFIDENCE,
    Array,
    Estimate,
    Figure,
    Unavailable,
    holm,
    too_few,
)

# Seeds of one system differ by a point or three on a few hundred examples; of fewer than three
# their spread cannot be known.
SEEDS = 3
# What a simpler or cheaper system may at most be worse by: one point.
NOT_WORSE = 0.01

Decision = Literal["better", "cheaper", "keep", "unavailable"]


@dataclass(frozen=True, slots=True)
class Trials:
    """One system's scores: for every seed a mapping of example id to score, of the same examples.

    Scores are such that their mean is the metric: right or wrong, token F1, and for macro-F1
    `macro_f1_scores`. `deterministic` says that a seed would change nothing, as with one model
    that decodes greedily: a single mapping is then enough.
    """

    seeds: tuple[Mapping[str, float], ...]
    deterministic: bool = False

    @property
    def enough(self) -> bool:
        """Whether the noise of seeds is known."""
        return self.deterministic or len(self.seeds) >= SEEDS


@dataclass(frozen=True, slots=True)
class Candidate:
    """A change that may be adopted: its trials, and whether it is simpler or cheaper."""

    trials: Trials
    cheaper: bool = False


@dataclass(frozen=True, slots=True)
class Adoption:
    """The decision on a change, in words, and its figures.

    `gain` is after minus before, with an interval at `confidence`, 95% but for a family of
    comparisons. `p_value` is that of no gain, two-sided, corrected for the family. `spread` is the
    standard deviation over seeds of the metric itself, before and after; None for one seed.
    """

    decision: Decision
    reason: str
    before: float
    after: float
    gain: Estimate
    p_value: float | None
    examples: int
    seeds: tuple[int, int]
    spread: tuple[float | None, float | None]
    confidence: float = CONFIDENCE

    @property
    def adopted(self) -> bool:
        """Whether the change is to be made."""
        return self.decision in ("better", "cheaper")


def adopt(before: Trials, after: Trials, *, cheaper: bool = False, family: int = 1) -> Adoption:
    """Decide on the change from `before` to `after`, one of `family` that are tried together.

    Raises KilotuneError where the trials are not all of the same examples.
    """
    return _decided(_compared(before, after), cheaper, family, family)


def adopt_among(before: Trials, candidates: Mapping[str, Candidate]) -> dict[str, Adoption]:
    """Decide on each of several changes of the same `before`, corrected as a family (Holm 1979).

    The surest is tried at 5% divided by all of them, the next by one fewer, and so on; from the
    first that is not surely better on, none is. Raises as `adopt` does.
    """
    compared = {name: _compared(before, c.trials) for name, c in candidates.items()}
    order = sorted(compared, key=lambda name: compared[name].p_value)
    corrected = holm([compared[name].p_value for name in order])
    left, adoptions = len(order), {}
    for name, p_value in zip(order, corrected, strict=True):
        found = _decided(compared[name], candidates[name].cheaper, left, len(order), p_value)
        adoptions[name] = found
        if p_value < 1 - CONFIDENCE:
            left -= 1
    return {name: adoptions[name] for name in candidates}


@dataclass(frozen=True, slots=True)
class Gain:
    """A mean gain with what its interval is made of: centre, standard error, degrees of freedom."""

    value: float
    centre: float
    error: float
    freedom: float

    @property
    def p_value(self) -> float:
        """Two-sided, of no gain."""
        return float(2 * student.sf(abs(self.centre) / self.error, self.freedom))

    def figure(self, confidence: float) -> Figure:
        """The gain with Student's interval."""
        half = float(student.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return Figure(
            self.value, min(self.centre - half, self.value), max(self.centre + half, self.value)
        )


def crossed_gain(before: Array, after: Array) -> Gain:
    """The gain of `after` (seeds, examples) over `before` (seeds, the same examples).

    Examples and seeds are both samples, crossed: the variance is that of the examples' mean gains,
    plus for each system what its seeds' means differ beyond what their examples explain (two-way
    analysis of variance), with Satterthwaite's (1946) degrees of freedom. Resampling the seeds
    says less: three can show no more than those three (docs/judging.md has both measured). Two
    examples are added, one that gains and one that loses as much as any did (Bonett and Price
    2012), so that no interval has zero width.
    """
    gains = after.mean(axis=0) - before.mean(axis=0)
    largest = float(np.abs(gains).max()) or 1.0
    padded = np.append(gains, [largest, -largest])
    variance = float(padded.var(ddof=1)) / len(padded)
    weight = variance**2 / (len(padded) - 1)
    for scores in (before, after):
        if len(scores) > 1:
            between, within = _seed_variances(scores)
            variance += max(0.0, between - within)
            weight += between**2 / (len(scores) - 1)
    return Gain(float(gains.mean()), float(padded.mean()), variance**0.5, variance**2 / weight)


def _seed_variances(scores: Array) -> tuple[float, float]:
    """The variance of the mean over seeds: as the seeds' means show it, and the examples' part."""
    seeds, examples = scores.shape
    means = scores.mean(axis=1, keepdims=True)
    rest = scores - means - scores.mean(axis=0) + scores.mean()
    square = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))
    return float(means.var(ddof=1)) / seeds, square / examples / seeds


@dataclass(frozen=True, slots=True)
class _Compared:
    before: Array
    after: Array
    gain: Gain | None
    obstacle: str

    @property
    def p_value(self) -> float:
        return 1.0 if self.gain is None else self.gain.p_value


def check_seeds(seeds: Sequence[int], where: str) -> None:
    """Raise KilotuneError where no gain could be shown with these seeds, whatever it is."""
    if len(set(seeds)) < max(SEEDS, len(seeds)):
        raise KilotuneError(
            f"{len(set(seeds))} different seed(s) of {len(seeds)}: nothing could be adopted",
            where=where,
            fix=f"Give at least {SEEDS} different ones: the noise between them must be known",
        )


def _compared(before: Trials, after: Trials) -> _Compared:
    first, second = _table(before, before), _table(after, before)
    if none := too_few(first.shape[1]):
        return _Compared(first, second, None, none.reason)
    few = min((len(t.seeds) for t in (before, after) if not t.enough), default=None)
    obstacle = "" if few is None else f"{few} seed(s); at least {SEEDS} are needed"
    return _Compared(first, second, crossed_gain(first, second), obstacle)


def _table(trials: Trials, reference: Trials) -> Array:
    """Shape (seeds, examples), in the order of the reference's first seed."""
    ids = list(reference.seeds[0])
    for number, scores in enumerate(trials.seeds):
        differing = sorted(scores.keys() ^ set(ids))
        if differing:
            raise KilotuneError(
                f"not the same examples: {some(differing)} are in one alone",
                where=f"trial {number}",
                fix="Compare systems on the same validation examples",
            )
    return np.array([[scores[id] for id in ids] for scores in trials.seeds], dtype=float)


def _decided(
    compared: _Compared, cheaper: bool, level: int, family: int, p_value: float | None = None
) -> Adoption:
    """The decision at 5% divided by `level`, where `family` are compared in all."""
    confidence = 1 - (1 - CONFIDENCE) / level
    gain: Estimate
    if compared.gain is None:
        gain, p_value = Unavailable(compared.obstacle), None
    else:
        gain = compared.gain.figure(confidence)
        p_value = min(1.0, family * compared.p_value) if p_value is None else p_value
    decision, words = _rule(gain, cheaper, compared.obstacle)
    many = f", one of {family} compared" if family > 1 else ""
    means = [float(table.mean()) for table in (compared.before, compared.after)]
    return Adoption(
        decision=decision,
        reason=words + many,
        before=means[0],
        after=means[1],
        gain=gain,
        p_value=p_value,
        examples=compared.before.shape[1],
        seeds=(len(compared.before), len(compared.after)),
        spread=(_spread(compared.before), _spread(compared.after)),
        confidence=confidence,
    )


def _rule(gain: Estimate, cheaper: bool, obstacle: str) -> tuple[Decision, str]:
    """The one place where it is decided."""
    if isinstance(gain, Unavailable) or obstacle:
        return "unavailable", f"cannot be decided: {obstacle}"
    said = f"{_points(gain.value)} points [{_points(gain.low)}, {_points(gain.high)}]"
    allowed = f"{100 * NOT_WORSE:g} point"
    if gain.low > 0:
        return "better", f"surely better: {said}"
    if cheaper and gain.low > -NOT_WORSE:
        return "cheaper", f"cheaper, and not worse by more than {allowed}: {said}"
    if gain.high < 0:
        return "keep", f"surely worse: {said}"
    if cheaper:
        return "keep", f"cheaper, but it may be worse by more than {allowed}: {said}"
    return "keep", f"not surely better: {said}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _spread(table: Array) -> float | None:
    return float(table.mean(axis=1).std(ddof=1)) if len(table) > 1 else None
