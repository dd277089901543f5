"""Whether pseudo-labels earn their place: Reuters R8 with few labels, tuned without and with them.

    python benchmarks/pseudo.py --out /tmp/pseudo
    python benchmarks/pseudo.py --out /tmp/harm --harmful

100 labelled articles, 2,000 more whose labels are looked at only to say how many pseudo-labels are
right, and 400 that are judged; all cut to 64 tokens and drawn once. Each tuning is a file in OUT,
so a stopped command goes on. Prints a line a seed, what each reaches on the judged articles with
the paired gains (also over as many steps without: more examples are more steps), and what `kilotune
run --unlabeled` would decide by its folds. With `--harmful` the unlabelled texts are not like the
labelled ones: none is of the two topics that make up most of these, and there are 1,000 at most.
"""

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from r8 import articles, short_articles

from kilotune.cli.terminal import TerminalProgress, quieten_libraries
from kilotune.data.files.writers import to_json, write_atomically, write_table
from kilotune.data.folds import Fold, make_folds
from kilotune.evaluation.adoption import Trials, adopt
from kilotune.evaluation.evidence import Estimate
from kilotune.evaluation.metrics import macro_f1, macro_f1_scores
from kilotune.models.source import locate
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.recipe.load import load_recipe
from kilotune.runs.stage_store import Stage, StageStore
from kilotune.self_training.pool import read_pool
from kilotune.self_training.rounds import SelfTraining, one_round
from kilotune.session.workbench import Workbench

Row = dict[str, str]
# Of each topic so many at least are labelled, however rare it is: one for every fold.
EACH = 3
# Four of five articles are of these.
COMMON = ("acq", "earn")


def write_data(folder: Path, chosen: argparse.Namespace) -> dict[str, str]:
    """The three files, the same for every call. Returns their paths."""
    rng = random.Random(1)
    size = len(articles("train")) if chosen.harmful else chosen.train + chosen.unlabeled
    labelled, texts = with_every_label(short_articles("train", size, rng), chosen.train)
    if chosen.harmful:
        texts = [row for row in texts if row["label"] not in COMMON][: chosen.unlabeled]
    parts = {
        "labelled": labelled,
        "unlabelled": texts,
        "judged": short_articles("test", chosen.judged, rng),
    }
    paths = {name: folder / f"{name}.csv" for name in parts}
    for name, path in paths.items():
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_table(path, ("text", "label"), parts[name])
    return {name: str(path.absolute()) for name, path in paths.items()}


def with_every_label(rows: Sequence[Row], count: int) -> tuple[list[Row], list[Row]]:
    """`count` of the rows, EACH of every label among them, and the others; both in their order."""
    seen: Counter[str] = Counter()
    first, others = [], []
    for row in rows:
        seen[row["label"]] += 1
        (first if seen[row["label"]] <= EACH else others).append(row)
    room = count - len(first)
    return first + others[:room], others[room:]


def settings(files: dict[str, str], chosen: argparse.Namespace) -> Prepared:
    """The data, read: judged articles stand in the test's place, and there is no validation."""
    recipe = load_recipe(
        settings={
            "data": {
                "train": files["labelled"],
                "test": files["judged"],
                "validation_fraction": 0,
            },
            "unlabeled": {
                "file": files["unlabelled"],
                "most": chosen.most,
                "pool": chosen.unlabeled,
                "seeds": list(range(chosen.seeds)),
                "folds": chosen.folds,
            },
        },
        overrides=chosen.overrides,
    )
    return prepare(recipe, TerminalProgress())


def of_seed(training: SelfTraining, seed: int, judged: Fold) -> dict[str, object]:
    """One seed, tuned on all labelled articles: how the judged are answered, and what was taken."""
    found = training.trusted([training.tuned(Stage(0, f.number, seed)) for f in training.folds])
    first, second = (Stage(number, training.whole, seed) for number in (0, 1))
    plain = training.tuned(first)
    chosen = training.accepted(plain, found, seed)
    student = training.retrained(second, chosen, plain)
    told = (plain, student, training.control(second, plain, student))
    truth = [str(example.label) for example in judged.validation]
    ids = [example.id for example in judged.validation]
    said = [[one.predictions[id] for id in ids] for one in told]
    labels = training.labels
    return {
        "seed": seed,
        "ids": ids,
        "accuracy": [sum(one.scores.values()) / len(ids) for one in told],
        "macro_f1": [macro_f1(truth, answers, labels) for answers in said],
        "scores": [[one.scores[id] for id in ids] for one in told],
        "f1_scores": [macro_f1_scores(truth, answers, labels) for answers in said],
        "steps": [one.steps for one in told],
        "taken": training.picked(chosen),
        "trust": found,
    }


def gains(results: Sequence[dict[str, object]], name: str) -> str:
    """The paired gains of all seeds together, in points, with their intervals."""
    without, with_labels, longer = (
        Trials(tuple(dict(zip(r["ids"], r[name][place], strict=True)) for r in results))
        for place in (0, 1, 2)
    )
    return (
        f"with over without {adopt(without, with_labels).reason}; with over as many steps without "
        f"{adopt(longer, with_labels).reason}; as many steps over fewer, both without "
        f"{adopt(without, longer).reason}"
    )


def line(result: dict[str, object]) -> str:
    """One seed as a row of the table."""
    trust, taken = result["trust"], result["taken"]
    accuracy, f1 = (
        " / ".join(f"{value:.3f}" for value in result[name]) for name in ("accuracy", "macro_f1")
    )
    cells = (
        result["seed"], accuracy, f1, taken.taken,
        "none" if trust.threshold is None else f"{trust.threshold:.3f}",
        f"{trust.temperature:.2f}", shown(trust.precision), shown(taken.real),
        " / ".join(map(str, result["steps"])),
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def shown(figure: Estimate | None) -> str:
    """A figure with its interval, or that there is none."""
    return "none" if figure is None else str(figure)


def main() -> None:
    """Tune, label, tune again, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--unlabeled", type=int, default=2000)
    parser.add_argument("--judged", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--most", type=int, default=300)
    parser.add_argument("--harmful", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    quieten_libraries()
    progress = TerminalProgress()
    prepared = settings(write_data(chosen.out / "data", chosen), chosen)
    pool = read_pool(prepared, progress)
    folds = make_folds(prepared.parts.train, chosen.folds, prepared.recipe.seed)
    judged = Fold(len(folds), prepared.parts.train, prepared.parts.test)
    bench = Workbench(prepared, locate(prepared.recipe.model), folds, progress)
    store = StageStore(chosen.out / "tunings", prepared.recipe)
    training = SelfTraining(bench, folds, judged, pool, store)
    results = []
    print("Without / with / as many steps without:\n")
    print("| seed | accuracy | macro-F1 | taken | threshold | temperature | "
          "precision out of fold | real precision | steps |")  # fmt: skip
    print("|---" * 9 + "|")
    for seed in range(chosen.seeds):
        results.append(of_seed(training, seed, judged))
        write_atomically(chosen.out / f"seed{seed}.json", to_json(results[-1]) + "\n")
        print(line(results[-1]), flush=True)
    print(f"\naccuracy: {gains(results, 'scores')}\nmacro-F1: {gains(results, 'f1_scores')}")
    decision = one_round(training, 1, {}, progress)
    write_atomically(chosen.out / "decision.json", to_json(decision) + "\n")
    print(f"by the folds: {decision.reason}")


if __name__ == "__main__":
    main()
