"""When to stop before the last epoch, and which evaluation was the best."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from kilotune.recipe.schema import StoppingSettings

# Among the metrics of an evaluation: the scores of its examples, whose mean is the metric.
SCORES = "eval_scores"
OF_LABELS = ("accuracy", "macro_f1")


class EarlyStopping(TrainerCallback, ExportableState):
    """Stop once `patience` evaluations in a row gained no more than `minimum_gain` on the best.

    The Trainer's own callback measures against its `best_metric`, which rises on any gain at all;
    this one keeps the best that counted, and is saved in checkpoints so that a resumed run stops
    where an uninterrupted one does. (Prechelt 1998, "Early stopping - but when?".)

    With `auto` the metric decides where it changed by more than its own noise, one standard error
    of the paired gain. Within it, of labels the later weights are taken: the loss of a few wrong
    ones grows with a model's confidence while it still learns (Guo et al. 2017, section 3), and
    with a falling rate later weights are the more settled. Of texts the validation loss decides,
    which every labelled token has a part in. Without `SCORES` the noise is none.
    """

    def __init__(self, metric: str, patience: int, minimum_gain: float | Literal["auto"]) -> None:
        self.metric = metric
        self.patience = patience
        self.minimum_gain = minimum_gain
        self.best: float | None = None
        self.best_loss = 0.0
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
        loss, scores = metrics.get("eval_loss", 0.0), list(metrics.get(SCORES, []))
        self.gained = self._gains(value, loss, scores)
        if self.gained:
            self.best, self.best_loss, self.scores, self.waited = value, loss, scores, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = True
            control.should_training_stop = True

    def _gains(self, value: float, loss: float, scores: Sequence[float]) -> bool:
        if self.best is None:
            return True
        if self.minimum_gain != "auto":
            return value > self.best + self.minimum_gain
        gain = value - self.best
        if not scores or abs(gain) > noise(self.scores, scores):
            return gain > 0
        return self.metric in OF_LABELS or loss < self.best_loss

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = ("best", "best_loss", "scores", "gained", "waited", "stopped")
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
