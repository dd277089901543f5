"""The rule by which changes are adopted, and how often it is wrong."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_rel

from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import (
    Candidate,
    Trials,
    adopt,
    adopt_among,
    crossed_gain,
)
from kilotune.evaluation.evidence import Unavailable
from kilotune.evaluation.metrics import macro_f1_scores

ROUNDS = 2000


def trials(table: NDArray[np.float64], *, deterministic: bool = False) -> Trials:
    seeds = tuple({f"data:{i}": float(v) for i, v in enumerate(row)} for row in table)
    return Trials(seeds, deterministic)


def right(share: float, *, seeds: int = 3, count: int = 200, seed: int = 0) -> NDArray[np.float64]:
    """Answers that are right with a probability of `share`, each by itself."""
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, count)) < share).astype(float)


def drawn(
    rng: np.random.Generator, count: int, seeds: int, noise: float, gain: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two systems of logit 1.5 (82% right at the middle), the second with `gain` more.

    Examples are harder or easier for both; each seed of each system is better or worse.
    """
    ease = 1.5 + rng.normal(0, 1.5, count)
    shift = rng.normal(0, noise, (2 * seeds, 1))
    shift[seeds:] += gain
    answers = (rng.random((2 * seeds, count)) < 1 / (1 + np.exp(-ease - shift))).astype(float)
    return answers[:seeds], answers[seeds:]


@pytest.mark.parametrize(
    ("count", "noise"),
    [
        (50, 0.3),
        *(
            pytest.param(count, noise, marks=pytest.mark.slow)
            for count in (20, 50, 200, 1000)
            for noise in (0.0, 0.3, 1.0)
            if (count, noise) != (50, 0.3)
        ),
    ],
)
def test_an_equal_candidate_is_seldom_adopted_as_better(count: int, noise: float) -> None:
    rng = np.random.default_rng(count)
    gains = [crossed_gain(*drawn(rng, count, 3, noise)).figure(0.95) for _ in range(ROUNDS)]
    assert np.mean([gain.low > 0 for gain in gains]) <= 0.05
    assert np.mean([gain.high < 0 for gain in gains]) <= 0.05


def test_an_equal_candidate_is_seldom_adopted_for_its_macro_f1() -> None:
    rng = np.random.default_rng(0)
    labels, shares = ["a", "b", "c"], [0.6, 0.3, 0.1]
    false = 0
    for _ in range(ROUNDS // 4):
        truth = rng.choice(labels, 100, p=shares).tolist()
        tables = []
        for _ in range(2):
            skills = rng.normal(0.8, 0.03, 3)
            said = [
                [r if rng.random() < skill else labels[rng.integers(3)] for r in truth]
                for skill in skills
            ]
            tables.append(np.array([macro_f1_scores(truth, s, labels) for s in said]))
        false += crossed_gain(*tables).figure(0.95).low > 0
    assert false / (ROUNDS // 4) <= 0.05


def test_a_candidate_that_gains_is_found() -> None:
    rng = np.random.default_rng(1)
    gains = [crossed_gain(*drawn(rng, 200, 3, 0.2, 1.0)).figure(0.95) for _ in range(300)]
    assert np.mean([gain.low > 0 for gain in gains]) > 0.7


def test_of_deterministic_systems_the_gain_is_a_paired_t_test_with_two_examples_more() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random((2, 60))
    largest = np.abs(after - before).max()
    expected = ttest_rel([*after, largest, 0], [*before, 0, largest])
    found = crossed_gain(before[None], after[None])
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    figure = found.figure(0.95)
    assert (figure.low, figure.high) == pytest.approx((interval.low, interval.high))
    assert figure.value == pytest.approx((after - before).mean())


def test_seeds_that_differ_widen_the_interval() -> None:
    before = right(0.8)
    steady, wild = right(0.8, seed=1), right(0.8, seed=1)
    wild[0, :60], wild[1, :60] = 0, 1
    widths = [
        (figure := crossed_gain(before, after).figure(0.95)).high - figure.low
        for after in (steady, wild)
    ]
    assert widths[1] > 2 * widths[0]


def test_better_is_adopted_and_the_reason_has_the_figures() -> None:
    found = adopt(trials(right(0.6)), trials(right(0.9, seed=1)))
    assert (found.decision, found.adopted) == ("better", True)
    assert found.gain.value == pytest.approx(found.after - found.before)
    assert found.reason.startswith(f"surely better: {100 * found.gain.value:+.1f} points [+")
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert (found.examples, found.seeds) == (200, (3, 3))
    assert all(0 < spread < 0.05 for spread in found.spread if spread is not None)


def test_what_is_not_surely_better_is_kept_unless_cheaper_and_surely_no_worse() -> None:
    same = trials(right(0.8, seeds=1, count=1000), deterministic=True)
    assert adopt(same, same).decision == "keep"
    cheaper = adopt(same, same, cheaper=True)
    assert (cheaper.decision, cheaper.gain.value) == ("cheaper", 0)
    assert cheaper.reason.startswith("cheaper, and not worse by more than 1 point: +0.0 points [-")
    # Of fifty examples that came out alike, one in fifty may still be worse.
    few = trials(right(0.8, seeds=1, count=50), deterministic=True)
    found = adopt(few, few, cheaper=True)
    assert found.decision == "keep"
    assert found.reason.startswith("cheaper, but it may be worse by more than 1 point")
    worse = adopt(trials(right(0.9)), trials(right(0.5, seed=1)), cheaper=True)
    assert (worse.decision, worse.reason[:12]) == ("keep", "surely worse")


def test_an_interval_of_equal_systems_has_a_width() -> None:
    perfect = np.ones((3, 40))
    found = adopt(trials(perfect), trials(perfect))
    assert found.gain.low is not None
    assert found.gain.low < -0.01
    assert found.gain.high > 0.01


def test_too_few_examples_or_seeds_decide_nothing() -> None:
    few = adopt(trials(np.zeros((3, 5))), trials(np.ones((3, 5))))
    assert few.decision == "unavailable"
    assert few.gain == Unavailable("5 examples; at least 6 are needed")
    assert (few.p_value, few.adopted) == (None, False)
    single = right(0.2, seeds=1), right(0.9, seeds=1)
    found = adopt(trials(single[0]), trials(single[1]))
    assert found.decision == "unavailable"
    assert found.reason == "cannot be decided: 1 seed(s); at least 3 are needed"
    assert found.gain.value == pytest.approx(found.after - found.before)
    greedy = [trials(table, deterministic=True) for table in single]
    assert adopt(*greedy).decision == "better"
    assert adopt(greedy[0], trials(right(0.9))).decision == "better"


def test_trials_on_other_examples_are_refused() -> None:
    other = Trials(({"data:0": 1.0, "data:9": 1.0},) * 3)
    with pytest.raises(KilotuneError, match=r"not the same examples: data:1, data:9"):
        adopt(Trials(({"data:0": 1.0, "data:1": 1.0},) * 3), other)


def test_the_order_of_examples_does_not_matter() -> None:
    table = right(0.8), right(0.85, seed=1)
    forth = adopt(trials(table[0]), trials(table[1]))
    turned = Trials(tuple(dict(reversed(seed.items())) for seed in trials(table[1]).seeds))
    assert adopt(trials(table[0]), turned) == forth


def test_a_family_asks_more_of_each() -> None:
    before, after = trials(right(0.7)), trials(right(0.785, seed=1))
    alone, among = adopt(before, after), adopt(before, after, family=20)
    assert alone.decision == "better"
    assert among.decision == "keep"
    assert among.confidence == pytest.approx(1 - 0.05 / 20)
    assert among.reason.endswith("one of 20 compared")
    assert alone.p_value is not None
    assert among.p_value == pytest.approx(20 * alone.p_value)


def test_among_several_the_surest_pays_most_and_none_is_adopted_behind_one_that_fails() -> None:
    before = trials(right(0.6))
    shares = {"none": 0.6, "much": 0.9, "more": 0.8}
    candidates = {
        name: Candidate(trials(right(share, seed=i + 1)))
        for i, (name, share) in enumerate(shares.items())
    }
    found = adopt_among(before, candidates)
    assert {name: a.decision for name, a in found.items()} == {
        "none": "keep", "much": "better", "more": "better",
    }  # fmt: skip
    levels = [found[name].confidence for name in ("much", "more", "none")]
    assert levels == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 0.95])


def test_equal_candidates_are_seldom_adopted_however_many() -> None:
    rng = np.random.default_rng(3)
    false = 0
    for _ in range(200):
        before, _ = drawn(rng, 60, 3, 0.3)
        ten = {str(i): Candidate(trials(drawn(rng, 60, 3, 0.3)[1])) for i in range(10)}
        false += any(a.adopted for a in adopt_among(trials(before), ten).values())
    assert false / 200 <= 0.05
