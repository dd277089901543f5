"""Seconds of a tuning against the number of its examples.

    python benchmarks/growth.py           # 125, 250, 500, 1,000 and 2,000 examples, in bfloat16
    python benchmarks/growth.py --rounds 3 --json

One epoch of `auto`'s tuning on articles of Reuters R8 behind an instruction that describes each
label, SmolLM2-135M: loading, hashing of the frozen weights, the first batch's check and every
step. The fit is a straight line, and the exponent that the seconds above its start grow with.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import linregress
from train_speed import WORKLOADS, examples
from transformers import AutoTokenizer

from kilotune.cli.terminal import quieten_libraries
from kilotune.models.builtin import make_builtin
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.load import load_recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.training.tuning import TuningJob, tune

COUNTS = (125, 250, 500, 1000, 2000)


def seconds(items: list[Rendering]) -> float:
    """One epoch over `items`, the loading of the model included."""
    recipe = load_recipe(
        settings={"data": {"train": "r8.csv"}},
        overrides=["model.precision=bfloat16", "tune.epochs=1", "tune.stopping.metric=loss"],
    )
    start = time.perf_counter()
    model = source_at(make_builtin("smollm2")).model(torch.bfloat16)
    tunable = Tunable(model, recipe.tune, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        tune(tunable, TuningJob(recipe, items, items[:1], 0, Path(folder)))
    tunable.prove()
    return time.perf_counter() - start


def fit(counts: list[int], times: list[float]) -> dict[str, float]:
    """The line through the medians, and the exponent of what lies above its intercept."""
    line = linregress(counts, times)
    grown = [time - max(line.intercept, 0.0) for time in times]
    points = [(math.log(n), math.log(t)) for n, t in zip(counts, grown, strict=True) if t > 0]
    return {
        "seconds_at_the_start": line.intercept,
        "seconds_an_example": line.slope,
        "r_squared": line.rvalue**2,
        "exponent": linregress(*zip(*points, strict=True)).slope,
    }


def main() -> None:
    """All counts in turn, as many rounds as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    quieten_libraries()
    tokenizer = AutoTokenizer.from_pretrained(make_builtin("smollm2"))
    items = examples(WORKLOADS["guide"], tokenizer, max(options.counts))
    taken: dict[int, list[float]] = {count: [] for count in options.counts}
    for _ in range(options.rounds):
        for count in options.counts:
            taken[count].append(seconds(items[:count]))
    medians = [statistics.median(times) for times in taken.values()]
    found = fit(list(taken), medians)
    table = Table("examples", "seconds", "seconds an example")
    for count, median in zip(taken, medians, strict=True):
        table.add_row(f"{count:,}", f"{median:.1f}", f"{median / count:.3f}")
    table.caption = (
        f"{found['seconds_at_the_start']:.1f} s and {found['seconds_an_example']:.4f} s an example"
        f" (R² {found['r_squared']:.4f}); exponent {found['exponent']:.2f}"
    )
    Console(width=100).print(table)
    if options.json:
        print(json.dumps({"medians": dict(zip(taken, medians, strict=True)), "fit": found}))


if __name__ == "__main__":
    main()
