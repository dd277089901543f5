import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.stats import bootstrap

from kilotune.evaluation.evidence import (
    Estimate,
    Figure,
    Resampling,
    Unavailable,
    difference,
    f1_figure,
    holm,
    macro_f1_gain,
    mean_figure,
    metric_figure,
    paired_gain,
    share,
    sign_test,
    wilson,
)
from kilotune.evaluation.metrics import macro_f1

# As a record has it.
ESTIMATE: TypeAdapter[Estimate] = TypeAdapter(Estimate)

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
    perfect = f1_figure(["a", "b"] * 10, ["a", "b"] * 10, LABELS, samples=200, seed=0)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low == pytest.approx(wilson(20, 20).low)


def test_macro_f1_bootstrap_equals_resampling_examples_one_by_one() -> None:
    rng = np.random.default_rng(0)
    references = rng.choice(LABELS, 80, p=[0.6, 0.3, 0.1]).tolist()
    predictions = [r if rng.random() < 0.7 else str(rng.choice([*LABELS, ""])) for r in references]
    figure = f1_figure(references, predictions, LABELS, samples=4000, seed=1)
    one_by_one = metric_figure(
        lambda rows: macro_f1(
            [references[i] for i in rows], [predictions[i] for i in rows], LABELS
        ),
        80,
        samples=1000,
        seed=2,
    )
    assert figure.value == pytest.approx(macro_f1(references, predictions, LABELS))
    assert (figure.low, figure.high) == pytest.approx((one_by_one.low, one_by_one.high), abs=0.015)


def test_the_same_seed_gives_the_same_interval() -> None:
    figures = [
        f1_figure(["a", "b", "c"] * 9, ["a", "b", "a"] * 9, LABELS, samples=300, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]


def test_difference_against_newcombes_example() -> None:
    # Newcombe 1998, table II, row (a): 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    figure = difference(wilson(56, 70), wilson(48, 80))
    assert figure.value == pytest.approx(0.2)
    assert (figure.low, figure.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_wins_and_losses_have_mcnemars_exact_p_value() -> None:
    before = [False] * 6 + [True] + [True] * 3 + [False] * 2
    after = [True] * 6 + [False] + [True] * 3 + [False] * 2
    paired = sign_test(before, after)
    assert (paired.wins, paired.losses, paired.ties) == (6, 1, 5)
    assert paired.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    assert sign_test([True], [True]).p_value == 1
    graded = sign_test([0.2, 0.5, 0.5, 0.0], [0.4, 0.6, 0.5, 0.9])
    assert (graded.wins, graded.losses, graded.ties, graded.p_value) == (3, 0, 1, 0.25)


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


def test_a_figure_is_shown_with_its_interval() -> None:
    assert str(Figure(0.5, 0.4, 0.6)) == "0.500 [0.400, 0.600]"


def test_holm_against_its_steps() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


ROUNDS = 2000


def covers(figure: object, truth: float) -> bool:
    assert isinstance(figure, Figure)
    return figure.low <= truth <= figure.high


@pytest.mark.parametrize("count", [50, 200, 1000])
def test_wilson_covers_as_often_as_it_says(count: int) -> None:
    rng = np.random.default_rng(count)
    for truth in (0.6, 0.9):
        right = rng.binomial(count, truth, ROUNDS).tolist()
        figures = {number: wilson(number, count) for number in set(right)}
        assert 0.92 <= np.mean([covers(figures[number], truth) for number in right]) <= 0.98


def graded(rng: np.random.Generator, count: int, perfect: float) -> list[float]:
    """Scores as of free text: some answers perfect, the others all over."""
    scores = np.where(rng.random(count) < perfect, 1.0, rng.beta(2, 3, count).round(2))
    return scores.tolist()


def marked(usual: list[tuple], others: list[tuple]) -> list:  # type: ignore[type-arg]
    """The usual cases at all sizes among the slow tests, the others among the long ones."""
    return [
        pytest.param(count, *case, marks=mark)
        for cases, mark in ((usual, pytest.mark.slow), (others, pytest.mark.long))
        for case in cases
        for count in (50, 200, 1000)
    ]


@pytest.mark.parametrize(("count", "perfect"), marked([(0.5,)], [(0.0,), (0.9,)]))
def test_the_interval_of_a_mean_covers_as_often_as_it_says(count: int, perfect: float) -> None:
    rng = np.random.default_rng(count)
    truth = perfect + (1 - perfect) * 0.4
    figures = (mean_figure(graded(rng, count, perfect), samples=400, seed=i) for i in range(ROUNDS))
    assert 0.92 <= np.mean([covers(figure, truth) for figure in figures]) <= 0.98


def confusions(shares: list[float], skills: list[float]) -> np.ndarray:
    """How often each class is met and called each class, all mistakes alike."""
    size = len(shares)
    spread = np.diag(skills) + (1 - np.array(skills))[:, None] * (1 - np.eye(size)) / (size - 1)
    return np.array(shares)[:, None] * spread


@pytest.mark.parametrize(
    ("count", "shares", "skills"),
    marked(
        [([0.6, 0.3, 0.1], [0.9, 0.8, 0.7])],
        [([0.5, 0.5], [0.9, 0.9]), ([0.34, 0.33, 0.33], [0.6] * 3)],
    ),
)
def test_the_interval_of_macro_f1_covers_as_often_as_it_says(
    count: int, shares: list[float], skills: list[float]
) -> None:
    cells = confusions(shares, skills)
    truth = np.mean(2 * cells.diagonal() / (cells.sum(axis=0) + cells.sum(axis=1)))
    names = LABELS[: len(shares)]
    rng = np.random.default_rng(count)
    covered = 0
    for round_ in range(ROUNDS):
        drawn = rng.choice(cells.size, count, p=cells.ravel() / cells.sum())
        references = [names[code // len(names)] for code in drawn]
        predictions = [names[code % len(names)] for code in drawn]
        figure = f1_figure(references, predictions, names, samples=400, seed=round_)
        covered += covers(figure, float(truth))
    assert 0.92 <= covered / ROUNDS <= 0.98


def test_the_bca_interval_is_scipys_but_for_students_quantile() -> None:
    values = np.random.default_rng(0).beta(5, 1, 80)
    theirs = bootstrap(
        (values,),
        np.mean,
        n_resamples=20000,
        method="BCa",
        confidence_level=0.9532,
        rng=np.random.default_rng(1),
    ).confidence_interval  # 0.9532 of the normal: Student's 95% with 79 degrees and n / (n - 1)
    ours = mean_figure(values.tolist(), samples=20000, seed=0)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_a_metric_of_ones_own_gets_the_interval_of_the_mean() -> None:
    values = np.random.default_rng(0).beta(2, 3, 60)
    own = metric_figure(lambda rows: float(values[rows].mean()), 60, samples=4000, seed=1)
    mean = mean_figure(values.tolist(), samples=4000, seed=2)
    assert own.value == pytest.approx(mean.value)
    assert (own.low, own.high) == pytest.approx((mean.low, mean.high), abs=0.005)


def test_the_gain_in_macro_f1_is_that_of_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(LABELS, 200, p=[0.6, 0.3, 0.1]).tolist()
    before = [r if rng.random() < 0.6 else "a" for r in truth]
    after = [r if rng.random() < 0.3 else b for r, b in zip(truth, before, strict=True)]
    gain = macro_f1_gain(truth, before, after, LABELS, samples=2000, seed=0)
    expected = macro_f1(truth, after, LABELS) - macro_f1(truth, before, LABELS)
    assert gain.value == pytest.approx(expected)
    apart = difference(
        f1_figure(truth, after, LABELS, samples=2000, seed=0),
        f1_figure(truth, before, LABELS, samples=2000, seed=0),
    )
    assert gain.low > 0
    assert gain.high - gain.low < 0.8 * (apart.high - apart.low)
    same = macro_f1_gain(truth, before, before, LABELS, samples=200, seed=0)
    assert same.low < 0 < same.high


def test_of_too_few_examples_no_figure_is_given() -> None:
    none = Unavailable("5 examples; at least 6 are needed")
    settings = {"samples": 50, "seed": 0}
    assert share(5, 5) == none
    assert mean_figure([1.0] * 5, **settings) == none
    assert paired_gain([0.0] * 5, [1.0] * 5, **settings) == none
    assert f1_figure(["a"] * 5, ["a"] * 5, LABELS, **settings) == none
    assert macro_f1_gain(["a"] * 5, ["a"] * 5, ["a"] * 5, LABELS, **settings) == none
    assert metric_figure(len, 5, **settings) == none
    assert (none.value, str(none)) == (None, "unavailable")
    assert isinstance(share(6, 6), Figure)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_of_values_that_are_not_finite_no_figure_is_given(bad: float) -> None:
    settings: Resampling = {"samples": 20, "seed": 0}
    values = [0.5] * 9 + [bad]
    none = Unavailable("1 of 10 values are not finite, or too large to calculate with")
    assert mean_figure(values, **settings) == none
    assert paired_gain([0.0] * 10, values, **settings) == none
    assert isinstance(
        metric_figure(lambda rows: float(np.take(values, rows).mean()), 10, **settings), Unavailable
    )
    bare = {"value": None, "low": None, "high": None}
    assert ESTIMATE.validate_python({**bare, "reason": none.reason}) == none
    assert ESTIMATE.validate_python(bare) == Unavailable("not a finite number")


def test_a_figure_is_finite() -> None:
    with pytest.raises(ValueError, match="no figure: nan"):
        Figure(np.nan, 0, 1)
    assert ESTIMATE.validate_python({"value": 0.5, "low": 0, "high": 1}) == Figure(0.5, 0, 1)
    for half in ({"value": 0.5, "low": None, "high": 1}, {"value": None, "low": 0.1}):
        with pytest.raises(ValidationError):
            ESTIMATE.validate_python(half)
