"""A training as it is seen: its log, the bar, and being asked to stop."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from kilotune.progress import Progress
from kilotune.system.signals import on_interrupt
from kilotune.training.checkpoints import find_best

# Among the metrics of an evaluation: how many tokens were generated for it.
TOKENS = "eval_generated_tokens"
# Seconds in which a second signal is the first one again: launchers pass on what their workers were
# sent themselves.
ONE_REQUEST = 0.5


class Watch(TrainerCallback):
    """Shows the training as it goes, and turns Ctrl-C into a checkpoint and a clean stop.

    A closed terminal and a request to end (SIGTERM) are as Ctrl-C.
    """

    def __init__(
        self,
        on_log: Callable[[dict[str, float]], None],
        on_save: Callable[[], None],
        progress: Progress,
        folder: Path,
    ) -> None:
        self.folder = folder
        self.on_log_line, self.on_saved = on_log, on_save
        self.progress = progress
        self.interrupted, self.asked = False, 0.0
        self.open = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, take over Ctrl-C, and find the best checkpoint of a moved run again."""
        find_best(state, self.folder)
        self.bar = self.open.enter_context(self.progress.bar("tuning", state.max_steps))
        self.bar.advance(state.global_step)
        self.open.enter_context(on_interrupt(self._interrupt))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass a line on to the record; show the training loss beside the bar."""
        line = {key: float(value) for key, value in (logs or {}).items()}
        if "train_runtime" in line:
            return  # the Trainer's summary: of a resumed training it is of the last part alone
        self.on_log_line({"step": state.global_step, **line})
        if "loss" in line:
            self.bar.advance(note=f"loss {line['loss']:.3f}")
        if "eval_loss" in line:
            self.progress.say(_evaluation_line(line))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Judge the last step too, wherever it falls; after Ctrl-C: save here and stop."""
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = args.save_strategy != "no"
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After Ctrl-C in the middle of an epoch: leave its evaluation to the resumed run."""
        if self.interrupted and not float(state.epoch).is_integer():
            control.should_evaluate = False
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint is there, and sealed."""
        self.on_saved()

    def close(self) -> None:
        """Close the bar and give Ctrl-C back, however the training ended."""
        self.open.close()

    def _interrupt(self, *signal_arguments: object) -> None:
        now = time.monotonic()
        if self.interrupted and now - self.asked > ONE_REQUEST:
            raise KeyboardInterrupt  # asked twice: now, without a checkpoint
        self.interrupted, self.asked = True, now
        self.progress.say("Interrupted: saving a checkpoint after this step (again to stop now)")


def _evaluation_line(line: dict[str, float]) -> str:
    speed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    names = [k for k in line if k.startswith("eval_") and k not in ("eval_loss", TOKENS, *speed)]
    figures = ", ".join(f"{name.removeprefix('eval_')} {line[name]:.3f}" for name in names)
    loss = f"validation loss {line['eval_loss']:.3f}"
    generated = f"; generated: {figures}" if figures else ""
    return f"epoch {line.get('epoch', 0):.3g}: {loss}{generated}"
