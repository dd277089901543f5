"""Which system gives the best model per label?

    python -m benchmarks.per_label --quick              # about 20 minutes on two cores
    python -m benchmarks.per_label --tasks movies r8 --sizes 100 --seeds 0 --systems tfidf auto
    python -m benchmarks.per_label --list               # which cells are there, which are not
    python -m benchmarks.per_label --page               # docs/measurements/per-label.md

A cell is a system that learns from the first N rows of a task, drawn by a seed, and answers 500
others. Cells that are in the results are not measured again unless --again says so; Ctrl-C loses
the one that is being measured alone. Peers need `make peers`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.per_label.cells import ROOT, Bench, Cell, Results, measure_all
from benchmarks.per_label.page import write_page
from benchmarks.per_label.systems import SYSTEMS
from benchmarks.per_label.tasks import HELD_OUT, TASKS, TEST_ROWS
from kilotune.models.builtin import make_builtin

SIZES, SEEDS = (50, 100, 300, 1000), (0, 1, 2)
PAGE = ROOT / "docs" / "measurements" / "per-label.md"
PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
QUICK = {
    "tasks": ["movies", "r8"],
    "sizes": [100],
    "seeds": [0],
    "systems": ["majority", "tfidf", "encoder", "states", "zero-shot", "few-shot", "auto"],
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked for; what is not said is everything, or with --quick less."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.per_label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS)
    parser.add_argument("--sizes", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS)
    parser.add_argument("--quick", action="store_true", help="two tasks, 100 rows, one seed")
    parser.add_argument("--held-out", action="store_true", help="the held-out tasks too")
    parser.add_argument("--again", action="store_true", help="measure what is measured already")
    parser.add_argument("--list", action="store_true", help="say which cells are there")
    parser.add_argument("--page", action="store_true", help="write the page, measure nothing")
    parser.add_argument("--results", type=Path, default=PAGE.with_suffix(".parquet"))
    parser.add_argument("--peer-python", default=PEER_PYTHON, help="an interpreter with the peers")
    chosen = parser.parse_args(arguments)
    everything = {
        "tasks": [name for name in TASKS if chosen.held_out or name not in HELD_OUT],
        "sizes": SIZES,
        "seeds": SEEDS,
        "systems": list(SYSTEMS),
    }
    for name, values in (QUICK if chosen.quick else everything).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, values)
    if not chosen.held_out and (kept := sorted(set(chosen.tasks) & set(HELD_OUT))):
        parser.error(f"{', '.join(kept)}: held out for the end; say --held-out")
    return chosen


def main() -> int:
    """Measure, list, or write the page. The exit status is 1 where a cell failed."""
    chosen = options()
    results = Results(chosen.results)
    if chosen.page:
        for path in write_page(results.rows(), chosen.results.with_suffix(".md")):
            print(path)
        return 0
    peer = Path(chosen.peer_python)
    bench = Bench(TASKS, SYSTEMS, TEST_ROWS, str(peer) if peer.exists() else None)
    cells = bench.cells(chosen.tasks, chosen.sizes, chosen.seeds, chosen.systems)
    if chosen.list:
        print_list(cells, results.done())
        return 0
    ready = Bench(
        TASKS,
        SYSTEMS,
        TEST_ROWS,
        bench.peer_python,
        str(make_builtin("smollm2")),
        str(make_builtin("minilm")),
    )
    try:
        failed = measure_all(
            ready, cells, results, lambda line: print(line, flush=True), again=chosen.again
        )
    except KeyboardInterrupt:
        print(f"\nStopped; {chosen.results} has what was measured, the same command goes on")
        return 130
    return 1 if failed else 0


def print_list(cells: Sequence[Cell], done: set[Cell]) -> None:
    """A line for each task and system: its sizes, and of how many seeds each is measured."""
    seeds = {cell.seed for cell in cells}
    for task, system in dict.fromkeys((cell.task, cell.system) for cell in cells):
        sizes = sorted({c.size for c in cells if (c.task, c.system) == (task, system)})
        found = [
            f"{size}: {sum(Cell(task, size, seed, system) in done for seed in seeds)}/{len(seeds)}"
            for size in sizes
        ]
        print(f"{task:<12}{system:<12}{'   '.join(found)}")
    print(f"{len(set(cells) & done)} of {len(cells)} cells are measured")


if __name__ == "__main__":
    sys.exit(main())
