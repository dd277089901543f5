"""When to stop before the last epoch."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from kilotune.recipe.schema import StoppingSettings


class EarlyStopping(TrainerCallback, ExportableState):
    """Stop once `patience` evaluations in a row gained no more than `minimum_gain` on the best.

    The Trainer's own callback measures against its `best_metric`, which rises on any gain at all;
    this one keeps the best that counted, and is saved in checkpoints so that a resumed run stops
    where an uninterrupted one does. (Prechelt 1998, "Early stopping - but when?".)
    """

    def __init__(self, metric: str, patience: int, minimum_gain: float) -> None:
        self.metric = metric
        self.patience = patience
        self.minimum_gain = minimum_gain
        self.best: float | None = None
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
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Count an evaluation, and ask the Trainer to stop when patience is over."""
        if self.metric == "none":
            return
        value = metrics[f"eval_{self.metric}"]
        gain = value if self.metric != "loss" else -value
        if self.best is None or gain > self.best + self.minimum_gain:
            self.best, self.waited = gain, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = True
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {
            "args": {
                "metric": self.metric,
                "patience": self.patience,
                "minimum_gain": self.minimum_gain,
            },
            "attributes": {"best": self.best, "waited": self.waited, "stopped": self.stopped},
        }
