"""One tuning of a tiny model, for `torchrun` to start in several processes: its losses as JSON.

With STOP_AT in the environment it is interrupted after that step, as by Ctrl-C.
"""

import json
import os
import sys
from pathlib import Path

import torch

from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.load import load_recipe
from kilotune.training import tuning
from tests.training.test_packing import PAD, conversations


def stopping(step: int) -> type[tuning.Watch]:
    class Stopping(tuning.Watch):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            self.interrupted = state.global_step == step
            super().on_step_end(args, state, control, **kwargs)

    return Stopping


def main(model: str, folder: str, *overrides: str) -> None:
    torch.set_num_threads(1)
    recipe = load_recipe(
        settings={"data": {"train": "x.csv"}},
        overrides=[
            "model.precision=float32",
            "tune.stopping.patience=9",
            "tune.stopping.metric=macro_f1",
            *overrides,
        ],
    )
    tunable = Tunable(source_at(model).model(torch.float32), recipe.tune, 0)
    lines: list[dict[str, float]] = []
    if stop_at := int(os.environ.get("STOP_AT", "0")):
        tuning.Watch = stopping(stop_at)  # type: ignore[misc]
    job = tuning.TuningJob(recipe, conversations(), conversations()[:3], PAD, Path(folder))
    measure = lambda _model: {"macro_f1": 0.0, "accuracy": 0.0}  # noqa: E731
    done = tuning.tune(tunable, job, tuning.Hooks(measure, lines.append))
    if os.environ.get("RANK", "0") == "0":
        losses = [line[key] for line in lines for key in ("loss", "eval_loss") if key in line]
        Path(folder, "losses.json").write_text(
            json.dumps([done.agreement.path, done.micro_batch_size, losses])
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
