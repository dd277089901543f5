"""Whether choosing what to label beats chance: 50 labelled articles, and 50 more by each strategy.

    python bench/selection.py --out /tmp/selection
    python bench/selection.py --out /tmp/selection --seeds 5 --strategy margin --strategy diverse

Reuters R8 cut to 64 tokens, near duplicates out, SmolLM2-135M with `auto`. With each seed other
articles are labelled first and others can be chosen from; the judged ones are always the same.
Every strategy's model is tuned anew on the 100. Each tuning is a file in OUT, so a stopped command
goes on with it. Prints a Markdown table for docs/selection.md.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from r8 import LABELS, articles, cut

from kilotune.cli.terminal import TerminalProgress, quieten_libraries
from kilotune.data.checks.duplicates import components
from kilotune.data.example import Example, Message, Origin
from kilotune.data.split import Split
from kilotune.data.writers import to_json, write_atomically
from kilotune.evaluate.acquisition import diverse, entropy, margin, most_uncertain
from kilotune.evaluate.adoption import crossed_gain
from kilotune.evaluate.evidence import CONFIDENCE
from kilotune.evaluate.metrics import macro_f1_scores
from kilotune.models.freeze import digests_of
from kilotune.models.load import locate
from kilotune.preparation import Prepared
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.render.wording import wording
from kilotune.session import Loaded, Session, begin_session, load, references
from kilotune.train.trainer import Checked, tune

TOKENS, FIRST, ADDED, POOL, JUDGED = 64, 50, 50, 600, 400
ALONE = "the first 50 alone"
Choose = Callable[[Sequence[str], np.ndarray, int], Sequence[int]]
STRATEGIES: dict[str, Choose] = {
    "random": lambda texts, p, seed: random.Random(seed).sample(range(len(texts)), ADDED),
    "margin": lambda texts, p, seed: most_uncertain(margin(p), ADDED),
    "entropy": lambda texts, p, seed: most_uncertain(entropy(p), ADDED),
    "diverse": lambda texts, p, seed: list(diverse(texts, margin(p), ADDED, seed=seed)),
}


def examples(part: str, size: int | None = None) -> list[Example]:
    """Articles of `part`, of those that are alike the first."""
    rows = articles(part)
    random.Random(0).shuffle(rows)
    made = [
        Example(
            f"{part}:{number}",
            (Message("user", row["text"]), Message("assistant", row["label"])),
            Origin(part, number),
            row["label"],
        )
        for number, row in enumerate(cut(rows[:size], TOKENS))
    ]
    alike = list(zip(components(made), made, strict=True))
    return list(dict(reversed(alike)).values())


@dataclass
class Bench:
    """The model in memory, and what is known of every tuning."""

    judged: Sequence[Example]
    out: Path
    loaded: Loaded | None = None
    digests: dict[str, str] = field(default_factory=dict)
    checked: Checked | None = None

    def tuned(self, train: Sequence[Example], seed: int) -> Session:
        """A session whose model was tuned on `train`; to be put back."""
        recipe = load_recipe(
            settings={"data": {"train": "r8.csv", "task": "classify"}, "seed": seed},
            overrides=["tune.stopping.metric=none"],
        )
        labels = tuple(sorted(LABELS))
        prepared = Prepared(
            recipe, (), Split(tuple(train), (), ()), "classify", labels,
            wording(None, None, labels), "", "text-label",
        )  # fmt: skip
        if self.loaded is None:
            self.loaded = load(prepared, locate(recipe.model), Silent())
            self.digests = digests_of(self.loaded.model)
        session = begin_session(self.loaded, prepared, Silent(), self.digests)
        with TemporaryDirectory() as scratch:
            tuning = tune(
                session.tunable, recipe, train=session.render()[0], validation=[],
                pad_id=session.prompting.template.tokenizer.pad_token_id, folder=Path(scratch),
                measure=lambda model: {}, on_log=lambda line: None, progress=Silent(),
                checked=self.checked, keep=False,
            )  # fmt: skip
        self.checked = Checked(tuning.agreement, tuning.cache)
        return session

    def put_back(self, session: Session) -> None:
        """Take the adapters off."""
        assert self.loaded is not None
        self.loaded = replace(self.loaded, model=session.tunable.release())

    def keep(self, name: str, seed: int, session: Session, **more: object) -> None:
        """What the model answers to the judged articles."""
        said = session.answer(session.tunable.model, self.judged, "judging").predictions
        write_atomically(self.place(name, seed), to_json({"predictions": said, **more}))

    def place(self, name: str, seed: int) -> Path:
        """The file of a tuning."""
        return self.out / f"{name.replace(' ', '-')}-{seed}.json"

    def read(self, name: str, seed: int) -> dict:
        """What is in it."""
        return json.loads(self.place(name, seed).read_text())


def try_seed(bench: Bench, every: Sequence[Example], seed: int, names: Sequence[str]) -> None:
    """Tune on the first, let each strategy choose, and tune on what it chose."""
    drawn = random.Random(seed).sample(list(every), FIRST + POOL)
    first, pool = drawn[:FIRST], drawn[FIRST:]
    if not bench.place(ALONE, seed).exists():
        session = bench.tuned(first, seed)
        model, labels = session.tunable.model, session.prepared.labels
        scored = session.prompting.scores(model, pool, labels, Silent(), "scoring")
        probabilities = [scores.probabilities for scores in scored]
        bench.keep(ALONE, seed, session, probabilities=probabilities)
        bench.put_back(session)
    probabilities = np.array(bench.read(ALONE, seed)["probabilities"])
    for name in names:
        if not bench.place(name, seed).exists():
            chosen = STRATEGIES[name]([e.text for e in pool], probabilities, seed)
            added = [pool[index] for index in chosen]
            session = bench.tuned([*first, *added], seed)
            bench.keep(name, seed, session, classes=len({e.label for e in added}))
            bench.put_back(session)


def table(bench: Bench, seeds: Sequence[int], names: Sequence[str]) -> str:
    """Means over the seeds, and the gain over chance: seeds are paired, and so are examples."""
    truth, labels = references(bench.judged), sorted(LABELS)

    def scores(name: str, seed: int) -> tuple[list[float], list[float]]:
        said = bench.read(name, seed)["predictions"]
        right = [float(a == b) for a, b in zip(said, truth, strict=True)]
        return right, macro_f1_scores(truth, said, labels)

    by_name = {name: np.array([scores(name, s) for s in seeds]) for name in (ALONE, *names)}
    lines = [
        f"{len(seeds)} seeds, {len(truth)} judged articles",
        "",
        "| | accuracy | gain | macro-F1 | gain | classes chosen |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in by_name.items():
        cells = [name]
        for metric in (0, 1):
            cells.append(f"{found[:, metric].mean():.3f}")
            other = found[:, metric] - by_name["random"][:, metric]
            if name in (ALONE, "random"):
                cells.append("")
                continue
            gain = crossed_gain(np.zeros((1, len(truth))), other).figure(CONFIDENCE)
            cells.append(f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]")
        classes = [bench.read(name, seed).get("classes", 0) for seed in seeds]
        cells.append(f"{statistics.mean(classes):.1f}" if name != ALONE else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategy", action="append", choices=STRATEGIES)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    quieten_libraries()
    chosen.out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(["random", *(chosen.strategy or STRATEGIES)]))
    every = examples("train")
    bench = Bench(examples("test", 2 * JUDGED)[:JUDGED], chosen.out)
    seeds = range(chosen.seeds)
    with TerminalProgress().bar("seeds", len(seeds)) as bar:
        for seed in seeds:
            try_seed(bench, every, seed, names)
            bar.advance()
            print(table(bench, range(seed + 1), names), flush=True)


if __name__ == "__main__":
    main()
