"""Confidences: their temperature, and from where up they hold what they promise."""

import math

import numpy as np
import pytest

from kilotune.evaluation.confidence import (
    Guess,
    confidence,
    fit_temperature,
    probabilities,
    trust,
)
from kilotune.evaluation.evidence import wilson


def drawn(count: int, heat: float, seed: int = 0) -> tuple[list[Guess], list[int], list[bool]]:
    """Guesses whose logits are `heat` times as large as the truth was drawn by."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 3))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = [int(rng.choice(3, p=row)) for row in likely]
    guesses = [
        Guess(str(row.argmax()), tuple((heat * row).tolist()), int(row.argmax())) for row in logits
    ]
    right = [guess.place == place for guess, place in zip(guesses, truth, strict=True)]
    return guesses, truth, right


@pytest.mark.parametrize("heat", [0.5, 1.0, 4.0])
def test_the_temperature_is_what_the_logits_were_heated_by(heat: float) -> None:
    guesses, truth, right = drawn(1500, heat)
    assert fit_temperature([g.logits for g in guesses], truth) == pytest.approx(heat, rel=0.15)
    found = trust(guesses, truth, right, 0.9)
    assert found.ece[1] < 0.03
    if heat == 4.0:
        assert found.ece[0] > 0.1


def test_the_temperature_of_two_answers_is_the_closed_form() -> None:
    # Three of four right at a logit of 3: the likeliest probability is 3/4, of a logit of ln 3.
    logits = [(3.0, 0.0)] * 4
    assert fit_temperature(logits, [0, 0, 0, 1]) == pytest.approx(3 / np.log(3), rel=1e-3)


def test_probabilities_keep_their_order_and_sum_to_one() -> None:
    guess = Guess("b", (-3.0, -1.0, -2.0), 1)
    for temperature in (0.1, 1.0, 10.0):
        likely = probabilities(guess, temperature)
        assert sum(likely) == pytest.approx(1)
        assert max(likely) == likely[1] == confidence(guess, temperature)


def sure(level: float, agrees: bool = True) -> Guess:
    return Guess("x", (float(np.log(level / (1 - level))), 0.0), 0, agrees)


def test_the_lowest_threshold_whose_lower_bound_reaches_the_target_is_taken() -> None:
    # 30 right at the top, 10 of 20 right in the middle.
    guesses = [sure(0.95)] * 30 + [sure(0.7)] * 20
    right = [True] * 30 + [True, False] * 10
    truth = [0 if hit else 1 for hit in right]
    found = trust(guesses, truth, right, 0.9)
    assert found.above == 30
    assert found.precision == wilson(30, 30)
    # One-sided 95%: n / (n + z^2) of a unanimous result.
    assert found.least == pytest.approx(30 / (30 + 1.6449**2), abs=1e-4)
    lower = trust(guesses, truth, right, 0.6)
    assert lower.above == 50
    assert lower.threshold is not None
    assert found.threshold is not None
    assert lower.threshold < found.threshold


def test_too_few_right_answers_support_nothing() -> None:
    guesses = [sure(0.99 - i / 1000) for i in range(24)]
    assert trust(guesses, [0] * 24, [True] * 24, 0.9).threshold is None
    more = [sure(0.99 - i / 1000) for i in range(25)]
    assert trust(more, [0] * 25, [True] * 25, 0.9).above == 25


@pytest.mark.parametrize(
    "other", [sure(0.95, agrees=False), Guess("", (3.0, 0.0), 0)], ids=["differs", "empty"]
)
def test_what_is_never_taken_counts_nowhere(other: Guess) -> None:
    guesses = [sure(0.95)] * 30 + [other] * 30
    right = [True] * 30 + [False] * 30
    found = trust(guesses, [0 if hit else 1 for hit in right], right, 0.9)
    assert found.above == 30
    assert found.accuracy == 0.5


def test_guesses_that_are_not_finite_count_nowhere() -> None:
    broken = [Guess("a", (math.nan, 1.0), 0)] * 20
    none = trust(broken, [0] * 20, [True] * 20, 0.9)
    assert (none.threshold, none.temperature, none.examples) == (None, 1.0, 20)
    sure = [Guess("a", (5.0, 1.0), 0)] * 60
    alone = trust(sure, [0] * 60, [True] * 60, 0.9)
    beside = trust([*sure, *broken], [0] * 80, [True] * 80, 0.9)
    assert (beside.threshold, beside.above) == (alone.threshold, alone.above) == (1.0, 60)
    assert beside.temperature == alone.temperature
