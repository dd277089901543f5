"""Whether every trained tensor is reached: at which step each first had a gradient."""

from collections.abc import Iterable
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from kilotune.models.freeze import check_reached
from kilotune.models.proof import Gradients
from kilotune.models.sharding import whole


class GradientWatch(TrainerCallback, ExportableState):
    """Notes the first step at which each trained tensor has a gradient that is not all zero.

    Steps at a learning rate of zero, such as the first of a warm-up, do not count. A tensor
    without a gradient in a whole epoch ends the training with an error: more epochs of the same
    examples would bring it none. Saved in checkpoints, so that a resumed run knows all steps.
    """

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.steps = 0

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Module,
        optimizer: Optimizer,
        **kwargs: Any,
    ) -> None:
        """Look at the gradients of what had none so far."""
        if not any(group["lr"] > 0 for group in optimizer.param_groups):
            return
        self.steps += 1
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad or name in self.first or parameter.grad is None:
                continue
            if whole(parameter.grad).any():
                self.first[name] = state.global_step + 1

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Module,
        **kwargs: Any,
    ) -> None:
        """After a whole epoch everything must have been reached."""
        if float(state.epoch or 0).is_integer():
            check_reached(_trained(model), Gradients(self.first, self.steps))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        return {"args": {}, "attributes": {"first": self.first, "steps": self.steps}}


def gradients_of(state: TrainerState) -> Gradients | None:
    """What the watch saw up to the last checkpoint; None where there was no watch."""
    kept = state.stateful_callbacks.get(GradientWatch.__name__)
    return Gradients(**kept["attributes"]) if isinstance(kept, dict) else None


def _trained(model: Module) -> Iterable[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]
