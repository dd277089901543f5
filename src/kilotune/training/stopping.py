"""When to stop before the last epoch, and which evaluation was the best."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from kilotune.recipe.schema import StoppingSettings

# Among the metrics of an evaluation: the scores of its examples, whose mean is the metric.
SCORES = "eval_scores"
# Standard errors that a fall must exceed to be one: 95% of chance falls do not.
SURE = 1.96


class EarlyStopping(TrainerCallback, ExportableState):
    """Stop once `patience` evaluations in a row gained no more than `minimum_gain` on the best.

    The Trainer's own callback measures against its `best_metric`, which rises on any gain at all;
    this one keeps the best that counted, and is saved in checkpoints so that a resumed run stops
    where an uninterrupted one does. (Prechelt 1998, "Early stopping - but when?".)

    With `auto` a later evaluation gains unless its metric is surely below the highest so far: by
    more than 1.96 standard errors of the paired gain. While the rate is high a metric of a few
    examples falls and rises again, and the weights at its end are the settled ones. Without
    `SCORES` the noise is none.
    """

    def __init__(self, metric: str, patience: int, minimum_gain: float | Literal["auto"]) -> None:
        self.metric = metric
        self.patience = patience
        self.minimum_gain = minimum_gain
        self.best: float | None = None
        self.scores: list[float] = []
        self.gained = False
        self.waited = 0
        self.stopped = False

    @classmethod
    def of(cls, settings: StoppingSettings) -> "EarlyStopping":
        """From the recipe's settings."""
        return cls(settings.metric, settings.patience, settings.minimum_gain)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Count an evaluation, and ask the Trainer to stop when patience is over."""
        if self.metric == "none":
            return
        value = metrics[f"eval_{self.metric}"]
        value = value if self.metric != "loss" else -value
        scores = list(metrics.get(SCORES, []))
        self.gained = self._gains(value, scores)
        if self.gained and (self.best is None or value > self.best):
            self.best, self.scores = value, scores
        self.waited = 0 if self.gained else self.waited + 1
        if self.waited >= self.patience:
            self.stopped = True
            control.should_training_stop = True

    def _gains(self, value: float, scores: Sequence[float]) -> bool:
        if self.best is None:
            return True
        if self.minimum_gain != "auto":
            return value > self.best + self.minimum_gain
        if not scores:
            return value > self.best
        return value >= self.best - SURE * noise(self.scores, scores)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = ("best", "scores", "gained", "waited", "stopped")
        return {
            "args": {
                "metric": self.metric,
                "patience": self.patience,
                "minimum_gain": self.minimum_gain,
            },
            "attributes": {name: getattr(self, name) for name in kept},
        }


def noise(before: Sequence[float], after: Sequence[float]) -> float:
    """The standard error of the mean gain on the same examples, in one run.

    With two examples added, one that gains and one that loses as much as any did (Bonett and
    Price 2012), as where changes are decided upon (`evaluation.adoption`): that one example in
    fifty changed is noise.
    """
    gains = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    largest = float(np.abs(gains).max())
    padded = np.append(gains, [largest, -largest])
    return float(padded.std(ddof=1)) / len(padded) ** 0.5
