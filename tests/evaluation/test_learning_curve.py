"""Curves made by a known law: what is promised must be what the law gives."""

from collections.abc import Callable

import numpy as np
import pytest

from kilotune.evaluation.learning_curve import LearningCurve, learning_curve

TODAY = 400
SIZES = (40, 80, 160, 320)


def drawn(law: Callable[[float], float], seed: int, chance: float = 0.1) -> LearningCurve:
    """The curve of 400 examples, each right as often as `law` says, in three rounds."""
    rng = np.random.default_rng(seed)
    # Examples are hard or easy whatever was learnt from: the sizes' answers go together.
    hard = rng.uniform(size=TODAY)
    scores = {
        size: [
            ((hard + rng.normal(scale=0.05, size=TODAY)) % 1 < law(size)).astype(float).tolist()
            for _ in range(3)
        ]
        for size in SIZES
    }
    return learning_curve("tfidf", "accuracy", scores, rows=TODAY, chance=chance)


def power(rows: float) -> float:
    return 1 - (0.05 + 2.0 * rows**-0.4)


def test_what_twice_the_labels_add_is_what_the_law_gives() -> None:
    curves = [drawn(power, seed) for seed in range(20)]
    for times, outlook in enumerate(curves[0].outlooks):
        true = power(outlook.rows) - power(TODAY)
        gains = [curve.outlooks[times].gain for curve in curves]
        assert np.mean([gain.low <= true <= gain.high for gain in gains]) >= 0.9
        assert np.mean([gain.value for gain in gains]) == pytest.approx(true, abs=0.012)
    assert [outlook.rows for outlook in curves[0].outlooks] == [800, 1600]


def test_a_gain_takes_as_many_labels_as_the_law_says() -> None:
    # 2 * rows^-0.4 must fall by 0.02: from 400 rows to 530.
    true = ((2.0 * TODAY**-0.4 - 0.02) / 2.0) ** (-1 / 0.4)
    prices = [curve.prices[0] for seed in range(10) if (curve := drawn(power, seed)).prices]
    assert len(prices) >= 9
    assert {price.gain for price in prices} == {0.02}
    assert np.median([price.rows for price in prices]) == pytest.approx(true, rel=0.15)
    assert all(price.low <= price.rows <= (price.high or np.inf) for price in prices)


def test_a_flat_curve_promises_nothing_and_names_no_price() -> None:
    curve = drawn(lambda rows: 0.8, 0)
    assert abs(curve.doubled.value) < 0.01
    assert curve.doubled.low < 0
    assert curve.prices == ()


def test_a_gain_whose_end_is_not_in_sight_has_none() -> None:
    curve = drawn(power, 3)
    assert [price.high for price in curve.prices][-1] is None
    assert curve.prices[-1].low < curve.prices[-1].rows


def test_points_have_intervals() -> None:
    curves = [drawn(power, seed) for seed in range(20)]
    assert [point.rows for point in curves[0].points] == list(SIZES)
    points = [point for curve in curves for point in curve.points]
    held = [one.figure.low <= power(one.rows) <= one.figure.high for one in points]
    assert np.mean(held) >= 0.9
    assert all(0.06 < one.figure.high - one.figure.low < 0.14 for one in points)


def test_answers_that_are_all_right_can_be_carried_on() -> None:
    scores = {size: [[1.0] * 50] for size in (10, 20)}
    curve = learning_curve("tfidf", "accuracy", scores, rows=50, chance=0.5)
    assert abs(curve.doubled.value) < 0.01
    assert curve.points[0].figure.value == 1.0
