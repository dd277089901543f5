import pytest
from transformers import TrainerControl

from kilotune.train.stopping import EarlyStopping


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
