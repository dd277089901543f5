"""Whether a model's probabilities of labels are what they say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kilotune.data.files.writers import Number
from kilotune.data.finding import Finding, about_rows
from kilotune.evaluation.evidence import (
    Estimate,
    Resampling,
    Unavailable,
    mean_figure,
    metric_figure,
)

# Of equal width, as usual (Guo et al. 2017, section 2).
BINS = 10
# Above this share of answers that name another label than the likeliest, one of them misleads.
DISAGREEING_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Bin:
    """The examples whose likeliest label has a probability in (low, high]."""

    low: float
    high: float
    examples: int
    confidence: Number
    accuracy: Number


@dataclass(frozen=True, slots=True)
class Calibration:
    """Label probabilities by packed multiple-choice scoring, against the truth.

    `ece` is the expected calibration error over the stated `bins`, `brier` the mean squared error
    over all labels (Brier 1950; 0 to 2), `accuracy` that of the likeliest label. `disagreeing` are
    the examples whose generated answer names another label than the likeliest. Where any of the
    probabilities is not finite there is no likeliest label, and so none of these.
    """

    accuracy: Estimate
    ece: Estimate
    brier: Estimate
    bins: tuple[Bin, ...]
    disagreeing: tuple[str, ...]

    def findings(self) -> list[Finding]:
        """The disagreement, where there is too much of it."""
        if len(self.disagreeing) <= DISAGREEING_SHARE * sum(bin.examples for bin in self.bins):
            return []
        return about_rows("scores-disagree", self.disagreeing)


def calibration(
    probabilities: NDArray[np.float64],
    references: Sequence[str],
    answered: Sequence[str],
    labels: Sequence[str],
    ids: Sequence[str],
    *,
    samples: int,
    seed: int,
) -> Calibration:
    """Of `probabilities` (examples, labels), the true and the generated labels, and the ids."""
    bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
    if bad:
        none = Unavailable(
            f"the model's label probabilities are not finite in {bad} of {len(ids)} examples"
        )
        return Calibration(none, none, none, bins=(), disagreeing=())
    index = {label: position for position, label in enumerate(labels)}
    truth = np.array([index.get(label, -1) for label in references])
    likeliest = probabilities.argmax(axis=1)
    sure, right = probabilities.max(axis=1), (likeliest == truth).astype(float)
    outcomes = (truth[:, None] == np.arange(len(labels))).astype(float)
    errors = ((probabilities - outcomes) ** 2).sum(axis=1)
    bins = _bins(sure, right)
    settings: Resampling = {"samples": samples, "seed": seed}

    def ece(rows: NDArray[np.int64]) -> float:
        return calibration_error(sure[rows], right[rows])

    return Calibration(
        accuracy=mean_figure(right.tolist(), **settings),
        ece=metric_figure(ece, len(truth), **settings),
        brier=mean_figure(errors.tolist(), **settings),
        bins=bins,
        disagreeing=tuple(
            id
            for id, said, best in zip(ids, answered, likeliest, strict=True)
            if index.get(said, -1) != best
        ),
    )


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The expected calibration error: |confidence - accuracy| of each bin, weighted by examples.

    NaN without examples.
    """
    if not len(confidences):
        return math.nan
    places = _places(confidences)
    gaps = np.bincount(places, weights=confidences - right, minlength=BINS)
    return float(np.abs(gaps).sum()) / len(confidences)


def _places(confidences: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _bins(confidences: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[Bin, ...]:
    places = _places(confidences)
    return tuple(
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            examples=int((places == place).sum()),
            confidence=float(confidences[places == place].mean()),
            accuracy=float(right[places == place].mean()),
        )
        for place in range(BINS)
        if (places == place).any()
    )
