"""Which settings make the best model of all labels? Candidates for `auto`, beside each other.

    python -m benchmarks.per_label.policy --tasks r8 newsgroups --sizes 100 --seeds 0 1 \\
        --candidates rate-5e-4 rate-2e-3
    python -m benchmarks.per_label.policy --page

Each tunes on all N rows of a task, as the final model of `auto` does, and answers the 500 rows of
the task's development test. Nothing is chosen by the held-out tasks. Cells that are measured are
not measured again; the model is loaded once for a task, size and seed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import kilotune
from benchmarks.per_label.cells import ROOT, Cell, Others, Results, judged, versions, where
from benchmarks.per_label.tasks import HELD_OUT, TASKS, TEST_ROWS, Draw, draw
from benchmarks.per_label.worker import peak_bytes
from kilotune.data.example import references
from kilotune.data.files.writers import write_atomically, write_table
from kilotune.data.folds import Fold
from kilotune.evaluation.evidence import paired_gain
from kilotune.models.builtin import make_builtin
from kilotune.models.learning_rate import with_learning_rate
from kilotune.models.source import locate
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.progress import Silent
from kilotune.recipe.schema import Recipe
from kilotune.runs.trials import Unit
from kilotune.session.workbench import Workbench, every_epoch, untold

PAGE = ROOT / "docs" / "measurements" / "policy.md"
# Settings beside those of the preset. The first is what the others are compared with.
CANDIDATES: dict[str, dict[str, Any]] = {
    "rate-5e-4": {"tune.learning_rate": 5e-4},
    "rate-1e-3": {"tune.learning_rate": 1e-3},
    "rate-2e-3": {"tune.learning_rate": 2e-3},
    "rate-4e-3": {"tune.learning_rate": 4e-3},
    "rank-16": {"tune.learning_rate": 2e-3, "tune.rank": 16, "tune.lora_alpha": 32},
    "batch-4": {"tune.learning_rate": 2e-3, "tune.batch_size": 4},
    "200-steps": {"tune.learning_rate": 2e-3, "tune.epochs": 16},
}
REFERENCE = next(iter(CANDIDATES))
HEAD = """# Which settings make the best model of all labels?

*Made by `python -m benchmarks.per_label.policy --page` from `{parquet}`; do not edit.*

Candidates for the preset `auto`: each tunes SmolLM2-135M-Instruct on all N rows of a task, in about
100 steps of eight and at least three epochs, and answers 500 others. Figures are the task's graded
one (macro-F1 of labels, field F1 of JSON); behind it the gain in the other (accuracy, exact match)
over `{reference}` on the same rows, with a 95% interval over these.
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """A task's rows of one seed and size, and a model that learns them again and again."""

    cell: Cell
    drawn: Draw
    folder: Path

    def tried(self, candidates: Sequence[str]) -> Iterator[dict]:
        """The row of each candidate."""
        bench: Workbench | None = None
        for name in candidates:
            prepared = self._prepared(CANDIDATES[name])
            fold = Fold(0, prepared.parts.train, prepared.parts.test)
            if bench is None:
                bench = Workbench(prepared, locate(prepared.recipe.model), [fold], Silent())
            others, start = Others(), time.perf_counter()
            trial = bench.run(prepared.recipe, Unit(0, self.cell.seed), sample=0, watched=False)
            said = [trial.predictions[example.id] for example in prepared.parts.test]
            found = {"answers": said, "reported": {}}
            truth = references(prepared.parts.test)
            task = TASKS[self.cell.task]
            yield {
                **{"task": task.name, "size": self.cell.size, "seed": self.cell.seed},
                **judged(task, prepared.labels, truth, found, self.cell.seed),
                "system": name,
                "kind": task.kind,
                "held_out": task.name in HELD_OUT,
                "learn_seconds": time.perf_counter() - start,
                "answer_seconds": None,
                "peak_bytes": peak_bytes(),
                "beside": others.cores(),
                "note": json.dumps(CANDIDATES[name]),
                "measured": time.strftime("%Y-%m-%d"),
                "where": where(),
                "versions": versions(sys.executable),
            }

    def _prepared(self, settings: Mapping[str, Any]) -> Prepared:
        task = TASKS[self.cell.task]
        base = {
            "seed": self.cell.seed,
            "model": {"name": str(make_builtin("smollm2"))},
            "data": {
                "train": self._file("train.csv", self.drawn.train(self.cell.size)),
                "test": self._file("test.csv", self.drawn.test),
                "task": task.kind,
                "system": task.system,
                "question": task.question,
                "validation_fraction": 0,
            },
            "judge": {"forgetting": "never", "base_check": "say", "baselines": []},
        }
        recipe = kilotune.load_recipe(preset="auto", settings=base).with_settings(settings)
        prepared = prepare(recipe, Silent())
        return replace(prepared, recipe=self._settled(prepared.recipe))

    def _settled(self, recipe: Recipe) -> Recipe:
        return untold(every_epoch(with_learning_rate(recipe, locate(recipe.model))))

    def _file(self, name: str, rows: Sequence[Any]) -> str:
        table = [{"text": row.text, "label": row.answer} for row in rows]
        write_table(self.folder / name, ("text", "label"), table)
        return str(self.folder / name)


def measure(tasks: Sequence[str], sizes: Sequence[int], seeds: Sequence[int],
            candidates: Sequence[str], results: Results) -> None:  # fmt: skip
    """Measure what is not in `results` yet, and keep each as it comes."""
    for seed in seeds:
        for size in sizes:
            for name in tasks:
                done = results.done()
                cells = [Cell(name, size, seed, one) for one in candidates]
                missing = [cell.system for cell in cells if cell not in done]
                if not missing:
                    continue
                drawn = draw(TASKS[name], TASKS[name].rows(), seed, TEST_ROWS)
                with tempfile.TemporaryDirectory() as scratch:
                    for row in Bench(cells[0], drawn, Path(scratch)).tried(missing):
                        results.add(row)
                        print(f"{name} {size} rows, seed {seed}, {row['system']}: "
                              f"{row['exact']['value']:.3f} / {row['graded']['value']:.3f}, "
                              f"{row['learn_seconds']:.0f} s", flush=True)  # fmt: skip


def page_text(rows: Sequence[dict], parquet: str) -> str:
    """The results as one table a number of rows, a line for each candidate."""
    parts = [HEAD.format(parquet=parquet, reference=REFERENCE)]
    for size in sorted({row["size"] for row in rows}):
        cells = {(r["task"], r["seed"], r["system"]): r for r in rows if r["size"] == size}
        places = sorted({(task, seed) for task, seed, _ in cells})
        names = [name for name in CANDIDATES if any(key[2] == name for key in cells)]
        head = " | ".join(f"{TASKS[task].title}, seed {seed}" for task, seed in places)
        lines = [f"## {size} rows\n", f"| | {head} |", "|---" * (len(places) + 1) + "|"]
        for name in names:
            figures = (_figure(cells, (*place, name)) for place in places)
            lines.append(f"| `{name}` | {' | '.join(figures)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _figure(cells: Mapping[tuple[str, int, str], dict], key: tuple[str, int, str]) -> str:
    row, reference = cells.get(key), cells.get((*key[:2], REFERENCE))
    if row is None:
        return ""
    said = f"{row['graded']['value']:.3f}"
    if reference is None or row is reference:
        return said
    right = (np.asarray(one["right"], dtype=float) for one in (reference, row))
    gain = paired_gain(*right, samples=2000, seed=0)
    return f"{said} ({gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}])"


def main() -> int:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.per_label.policy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    to_develop_on = [name for name in TASKS if name not in HELD_OUT]
    parser.add_argument("--tasks", nargs="+", choices=to_develop_on, default=to_develop_on)
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=[*CANDIDATES])
    parser.add_argument("--page", action="store_true", help="write the page, measure nothing")
    chosen = parser.parse_args()
    results = Results(PAGE.with_suffix(".parquet"))
    if not chosen.page:
        measure(chosen.tasks, chosen.sizes, chosen.seeds, chosen.candidates, results)
    write_atomically(PAGE, page_text(results.rows(), PAGE.with_suffix(".parquet").name))
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
