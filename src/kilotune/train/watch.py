"""A training as it is seen: its log, the bar, and Ctrl-C."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState

from kilotune.progress import Progress


class Watch(TrainerCallback):
    """Shows the training as it goes, and turns Ctrl-C into a checkpoint and a clean stop."""

    def __init__(
        self, on_log: Callable[[dict[str, float]], None], progress: Progress, folder: Path
    ) -> None:
        self.folder = folder
        self.on_log_line = on_log
        self.progress = progress
        self.interrupted = False
        self.open = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, take over Ctrl-C, and find the best checkpoint of a moved run again."""
        find_best(state, self.folder)
        self.bar = self.open.enter_context(self.progress.bar("tuning", state.max_steps))
        self.bar.advance(state.global_step)
        self.open.enter_context(_on_interrupt(self._interrupt))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Pass a line on to the record; show the training loss beside the bar."""
        line = {key: float(value) for key, value in (logs or {}).items()}
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

    def close(self) -> None:
        """Close the bar and give Ctrl-C back, however the training ended."""
        self.open.close()

    def _interrupt(self, *signal_arguments: object) -> None:
        if self.interrupted:  # asked twice: now, without a checkpoint
            raise KeyboardInterrupt
        self.interrupted = True
        self.progress.say("Interrupted: saving a checkpoint after this step (again to stop now)")


def _evaluation_line(line: dict[str, float]) -> str:
    speed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    names = [k for k in line if k.startswith("eval_") and k not in ("eval_loss", *speed)]
    figures = ", ".join(f"{name.removeprefix('eval_')} {line[name]:.3f}" for name in names)
    loss = f"validation loss {line['eval_loss']:.3f}"
    generated = f"; generated: {figures}" if figures else ""
    return f"epoch {line.get('epoch', 0):.3g}: {loss}{generated}"


@contextmanager
def _on_interrupt(handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the host program's business
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def find_best(state: TrainerState, folder: Path) -> None:
    """The state names its best checkpoint by where it was written; a run may have moved."""
    if state.best_global_step:
        state.best_model_checkpoint = str(folder / f"checkpoint-{state.best_global_step}")
