import numpy as np
import pytest

from kilotune.evaluate.evidence import (
    Figure,
    difference,
    holm,
    macro_f1_figure,
    mcnemar,
    mean_figure,
    paired_gain,
    wilson,
)
from kilotune.evaluate.metrics import macro_f1

LABELS = ["a", "b", "c"]


def test_wilson_against_the_published_formula() -> None:
    figure = wilson(8, 10)
    z, n, p = 1.959963985, 10, 0.8
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (figure.low, figure.high) == pytest.approx((center - half, center + half))


def test_no_interval_has_zero_width() -> None:
    assert wilson(20, 20).low < 1
    assert wilson(0, 20).high > 0
    perfect = macro_f1_figure(["a", "b"] * 10, ["a", "b"] * 10, LABELS, samples=200, seed=0)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(wilson(20, 20).low)


def test_macro_f1_bootstrap_equals_resampling_examples_one_by_one() -> None:
    rng = np.random.default_rng(0)
    references = rng.choice(LABELS, 80, p=[0.6, 0.3, 0.1]).tolist()
    predictions = [r if rng.random() < 0.7 else str(rng.choice([*LABELS, ""])) for r in references]
    figure = macro_f1_figure(references, predictions, LABELS, samples=4000, seed=1)
    drawn = []
    for _ in range(1500):
        rows = rng.integers(0, 80, 80)
        drawn.append(
            macro_f1([references[i] for i in rows], [predictions[i] for i in rows], LABELS)
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert figure.value == pytest.approx(macro_f1(references, predictions, LABELS))
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.015)


def test_the_same_seed_gives_the_same_interval() -> None:
    figures = [
        macro_f1_figure(["a", "b", "c"] * 9, ["a", "b", "a"] * 9, LABELS, samples=300, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]


def test_difference_against_newcombes_example() -> None:
    # Newcombe 1998, table II, row (a): 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    figure = difference(wilson(56, 70), wilson(48, 80))
    assert figure.value == pytest.approx(0.2)
    assert (figure.low, figure.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_mcnemar_counts_and_exact_p_value() -> None:
    before = [False] * 6 + [True] + [True] * 3 + [False] * 2
    after = [True] * 6 + [False] + [True] * 3 + [False] * 2
    paired = mcnemar(before, after)
    assert (paired.wins, paired.losses, paired.ties) == (6, 1, 5)
    assert paired.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar([True], [True]).p_value == 1


def test_the_bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    scores = np.random.default_rng(0).beta(2, 3, 400)
    figure = mean_figure(scores.tolist(), samples=4000, seed=1)
    half = 1.96 * scores.std() / 20
    assert figure.value == pytest.approx(scores.mean())
    assert (figure.low, figure.high) == pytest.approx(
        (scores.mean() - half, scores.mean() + half), abs=0.003
    )
    alike = mean_figure([1.0] * 20, samples=100, seed=0)
    assert (alike.value, alike.high) == (1, 1)
    assert alike.low == pytest.approx(wilson(20, 20).low)


def test_a_paired_gain_is_surer_than_two_apart() -> None:
    rng = np.random.default_rng(0)
    before = rng.beta(2, 3, 200)
    after = before + rng.normal(0.05, 0.01, 200)
    gain = paired_gain(before.tolist(), after.tolist(), samples=2000, seed=0)
    assert gain.value == pytest.approx(0.05, abs=0.002)
    assert 0.04 < gain.low <= gain.value <= gain.high < 0.06
    alike = mean_figure([0.7] * 50, samples=100, seed=0)
    assert alike.high - alike.low > 0.1  # whatever rounding makes of equal scores
    nothing = paired_gain([0.5] * 30, [0.5] * 30, samples=100, seed=0)
    assert nothing.low < 0 < nothing.high


def test_overlap() -> None:
    assert Figure(0.5, 0.4, 0.6).overlaps(Figure(0.65, 0.6, 0.7))
    assert not Figure(0.5, 0.4, 0.59).overlaps(Figure(0.65, 0.6, 0.7))
    assert str(Figure(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"


def test_holm_against_its_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []
