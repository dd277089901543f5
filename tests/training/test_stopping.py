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


def chosen(
    curve: list[tuple[list[int], float]], patience: int = 9, metric: str = "token_f1"
) -> tuple[int, int]:
    """Of (right answers, validation loss) an evaluation: the best one, and the last."""
    stopping = EarlyStopping(metric, patience, "auto")
    best = 0
    for number, (right, loss) in enumerate(curve, 1):
        control = TrainerControl()
        stopping = EarlyStopping.from_state(stopping.state())
        scores = [float(value) for value in right]
        metrics = {f"eval_{metric}": sum(right) / len(right), "eval_loss": loss, SCORES: scores}
        stopping.on_evaluate(None, None, control, metrics)
        best = number if stopping.gained else best
        if control.should_training_stop:
            break
    return best, number


def answers(wrong: list[int], count: int = 60) -> list[int]:
    return [int(index not in wrong) for index in range(count)]


def test_within_its_noise_a_metric_leaves_the_choice_to_the_loss() -> None:
    # Film reviews, seed 0: 53, 52 and 52 of 60 right, and the losses of that run.
    first, later = answers(list(range(7))), answers([*range(6), 20, 21])
    assert chosen([(first, 0.1668), (later, 0.1598), (later, 0.1644)]) == (2, 3)
    # By the metric alone the first would be kept, for one example.
    assert stops_at([53 / 60, 52 / 60, 52 / 60], "accuracy", 2, 0.0) == 3


def test_of_labels_the_later_of_two_as_good_is_taken() -> None:
    first, later = answers(list(range(7))), answers([*range(6), 20, 21])
    curve = [(first, 0.1668), (later, 0.1598), (later, 0.1644)]
    for metric in ("accuracy", "macro_f1"):
        assert chosen(curve, 1, metric) == (3, 3)
    # And none that is surely worse.
    poor = answers(list(range(20)))
    assert chosen([(first, 0.2), (poor, 0.1), (poor, 0.1)], 2, "accuracy") == (1, 3)


def test_beyond_its_noise_the_metric_decides_whatever_the_loss() -> None:
    poor, good = answers(list(range(20))), answers(list(range(5)))
    assert chosen([(poor, 0.5), (good, 0.6)]) == (2, 2)
    assert chosen([(good, 0.5), (poor, 0.4)]) == (1, 2)


def test_no_gain_beyond_noise_and_no_lower_loss_ends_the_training() -> None:
    same = answers(list(range(6)))
    assert chosen([(same, 0.5), (same, 0.4), (same, 0.45), (same, 0.41)], patience=2) == (2, 4)


def test_the_noise_of_a_gain_is_its_standard_error_with_two_examples_more() -> None:
    before, after = answers(list(range(6))), answers([*range(2), 30])
    # 4 gained, 1 lost, and one of each added: 7 that differ of 62, by 3 in sum.
    variance = (7 - 3**2 / 62) / 61
    assert noise(before, after) == pytest.approx((variance / 62) ** 0.5)
    assert noise(before, before) == 0
