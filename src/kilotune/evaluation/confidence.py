"""How far a model's own confidence may be trusted: its temperature, and from where up it is right.

Both are told from answers to examples that the model was not trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from kilotune.data.files.writers import Number
from kilotune.evaluation.calibration import calibration_error
from kilotune.evaluation.evidence import CONFIDENCE, Figure, wilson

# Where temperatures are looked for: a model that is right throughout would be cooled without end.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True, slots=True)
class Guess:
    """What a model said of one text, and how sure it was of it and of other answers.

    `logits` are log-likelihoods, up to a constant, of exclusive answers; `place` is where among
    them that of `answer` stands. `agrees` says that it answered altered texts alike.
    """

    answer: str
    logits: tuple[Number, ...]
    place: int
    agrees: bool = True


@dataclass(frozen=True, slots=True)
class Trust:
    """From which confidence up guesses may be taken, by guesses of which the truth is known.

    `temperature` divides the logits; `ece` is the expected calibration error before and after.
    Of `examples` guesses, `above` reach the `threshold`, `precision` of them right, and with 95%
    certainty, one-sided, at least `least`. Without a threshold none reaches the target.
    """

    temperature: Number
    ece: tuple[Number, Number]
    examples: int
    accuracy: float
    threshold: float | None
    above: int = 0
    precision: Figure | None = None
    least: float | None = None


def fit_temperature(logits: Sequence[Sequence[float]], truth: Sequence[int]) -> float:
    """The temperature by which `logits` (n, answers) explain `truth` (n places) best.

    Temperature scaling (Guo et al. 2017, section 4.2): the one number that minimises the negative
    log-likelihood. It changes no order of answers. Within COLDEST and HOTTEST; 1 where there is
    nothing to be explained.
    """
    table, places = np.asarray(logits, dtype=float), np.asarray(truth)
    if not len(table):
        return 1.0

    def surprise(log_temperature: float) -> float:
        likely = log_softmax(table / np.exp(log_temperature), axis=1)
        return -float(likely[np.arange(len(places)), places].mean())

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded").x))


def probabilities(guess: Guess, temperature: float) -> tuple[float, ...]:
    """The probability of each answer at a temperature, in the order of the guess's logits."""
    scaled = log_softmax(np.asarray(guess.logits, dtype=float) / temperature)
    return tuple(np.exp(scaled).tolist())


def confidence(guess: Guess, temperature: float) -> float:
    """How likely the guess itself is at a temperature."""
    return probabilities(guess, temperature)[guess.place]


def trust(
    guesses: Sequence[Guess], truth: Sequence[int], right: Sequence[bool], target: float
) -> Trust:
    """The temperature of `guesses`, and the lowest threshold whose precision reaches `target`.

    `truth` are the places of the true answers among each guess's logits. A threshold is supported
    where the lower bound of Wilson's interval (95%, one-sided) for the share of right guesses from
    it up is at least `target`; guesses that do not agree with themselves, answer nothing or have
    logits that are not finite, which are never taken, count nowhere. The bound is that of each
    threshold by itself, not of all that were looked at.
    """
    finite = np.array([bool(np.isfinite(guess.logits).all()) for guess in guesses])
    told = np.flatnonzero(finite).tolist()
    temperature = fit_temperature([guesses[i].logits for i in told], [truth[i] for i in told])
    sure = np.array([confidence(guess, temperature) for guess in guesses])
    hit = np.array(right, dtype=float)
    raw = np.array([confidence(guess, 1.0) for guess in guesses])
    agreeing = finite & [guess.agrees and bool(guess.answer) for guess in guesses]
    found = _lowest(sure[agreeing], hit[agreeing], target)
    ece = (
        calibration_error(raw[finite], hit[finite]),
        calibration_error(sure[finite], hit[finite]),
    )
    if found is None:
        return Trust(temperature, ece, len(guesses), float(hit.mean()), None)
    above = agreeing & (sure >= found)
    successes, total = int(hit[above].sum()), int(above.sum())
    return Trust(
        temperature=temperature,
        ece=ece,
        examples=len(guesses),
        accuracy=float(hit.mean()),
        threshold=found,
        above=total,
        precision=wilson(successes, total),
        least=_least(successes, total),
    )


def _lowest(sure: NDArray[np.float64], right: NDArray[np.float64], target: float) -> float | None:
    supported = [
        float(threshold)
        for threshold in np.unique(sure)
        if _least(int(right[sure >= threshold].sum()), int((sure >= threshold).sum())) >= target
    ]
    return min(supported, default=None)


def _least(successes: int, total: int) -> float:
    """The lower end of Wilson's interval, one-sided: of the two-sided one at twice the error."""
    return wilson(successes, total, 1 - 2 * (1 - CONFIDENCE)).low
