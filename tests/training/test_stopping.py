import pytest
from transformers import TrainerControl

from kilotune.training.stopping import SCORES, EarlyStopping, noise


def stops_at(values: list[float], metric: str, patience: int, gain: float) -> int | None:
    stopping = EarlyStopping(metric, patience, gain)
    for number, value in enumerate(values, 1):
        control = TrainerControl()
        # Through a checkpoint and back at every step: a resumed run must behave the same.
        stopping = EarlyStopping.from_state(stopping.state())
        stopping.on_evaluate(None, None, control, {f"eval_{metric}": value})
        if control.should_training_stop:
            return number
    return None


@pytest.mark.parametrize(
    ("values", "patience", "gain", "expected"),
    [
        ([0.5, 0.6, 0.7], 1, 0.0, None),
        ([0.5, 0.6, 0.6], 1, 0.0, 3),
        ([0.5, 0.6, 0.55, 0.7], 2, 0.0, None),
        ([0.5, 0.6, 0.55, 0.6], 2, 0.0, 4),
        # Each step gains less than the minimum on the last, but the sum of two exceeds it.
        ([0.50, 0.51, 0.52, 0.53], 2, 0.015, None),
        ([0.50, 0.505, 0.51, 0.512], 3, 0.015, 4),
    ],
)
def test_accuracy_stops(
    values: list[float], patience: int, gain: float, expected: int | None
) -> None:
    assert stops_at(values, "accuracy", patience, gain) == expected


def test_loss_gains_by_falling() -> None:
    assert stops_at([1.0, 0.8, 0.6], "loss", 1, 0.0) is None
    assert stops_at([1.0, 0.8, 0.9], "loss", 1, 0.0) == 3


def chosen(curve: list[list[int]], patience: int = 9) -> tuple[int, int]:
    """Of the right answers of each evaluation: which was the best one, and which the last."""
    stopping = EarlyStopping("accuracy", patience, "auto")
    best = 0
    for number, right in enumerate(curve, 1):
        control = TrainerControl()
        stopping = EarlyStopping.from_state(stopping.state())
        metrics = {"eval_accuracy": sum(right) / len(right), SCORES: [float(one) for one in right]}
        stopping.on_evaluate(None, None, control, metrics)
        best = number if stopping.gained else best
        if control.should_training_stop:
            break
    return best, number


def answers(wrong: list[int], count: int = 60) -> list[int]:
    return [int(index not in wrong) for index in range(count)]


def test_of_two_that_differ_by_chance_the_later_is_taken() -> None:
    # Film reviews, seed 0: 53, 52 and 52 of 60 right. On the test the last had 7 more of 500.
    first, later = answers(list(range(7))), answers([*range(6), 20, 21])
    assert chosen([first, later, later], patience=1) == (3, 3)
    # By the metric alone the first would be kept, for one example.
    assert stops_at([53 / 60, 52 / 60, 52 / 60], "accuracy", 2, 0.0) == 3


def test_one_that_is_surely_worse_is_not_and_ends_the_training() -> None:
    poor, good = answers(list(range(20))), answers(list(range(5)))
    assert chosen([poor, good, good]) == (3, 3)
    assert chosen([good, poor, poor, poor], patience=2) == (1, 3)


def test_a_fall_by_small_steps_is_seen_from_the_highest() -> None:
    falling = [answers(list(range(5 + 2 * step))) for step in range(8)]
    best, last = chosen(falling, patience=2)
    assert last < len(falling)
    assert best < last - 1


def test_few_examples_that_fall_and_rise_again_end_nothing() -> None:
    # 20 examples of R8 at a rate of 2e-3: 15, 10, 11, 15, 16, 18 and 17 right.
    curve = [answers(list(range(20 - right)), 20) for right in (15, 10, 11, 15, 16, 18, 17)]
    assert chosen(curve, patience=2) == (7, 7)


def test_the_noise_of_a_gain_is_its_standard_error_with_two_examples_more() -> None:
    before, after = answers(list(range(6))), answers([*range(2), 30])
    # 4 gained, 1 lost, and one of each added: 7 that differ of 62, by 3 in sum.
    variance = (7 - 3**2 / 62) / 61
    assert noise(before, after) == pytest.approx((variance / 62) ** 0.5)
    assert noise(before, before) == 0
