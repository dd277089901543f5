"""Whether choosing what to label beats chance: 50 labelled articles, and 50 more by each strategy.

    python benchmarks/selection.py --out /tmp/selection
    python benchmarks/selection.py --out /tmp/chosen --seeds 5 --strategy margin --strategy diverse
    python benchmarks/selection.py --out /tmp/selection --model words --seeds 40     # in a minute
    python benchmarks/selection.py --out /tmp/top6 --set tune.layers=top:6

Reuters R8 cut to 64 tokens, near duplicates out. With each seed other articles are labelled first
and others can be chosen from; the judged ones are always the same. Every strategy's model learns
anew from the 100: SmolLM2-135M with `auto`, or TF-IDF with logistic regression (`words`), which is
cheap enough for many seeds. Each tuning is a file in OUT, so a stopped command goes on with it.
Prints a Markdown table for docs/selection.md.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from r8 import LABELS, TOKENS, articles, cut
from sklearn.pipeline import Pipeline

from kilotune.cli.terminal import TerminalProgress, quieten_libraries
from kilotune.data.checks.duplicates import components
from kilotune.data.example import Example, Message, Origin, references
from kilotune.data.files.writers import to_json, write_atomically
from kilotune.data.split import Split
from kilotune.evaluation.active_learning import diverse, entropy, margin, most_uncertain
from kilotune.evaluation.adoption import crossed_gain
from kilotune.evaluation.baselines import bag_of_words
from kilotune.evaluation.evidence import CONFIDENCE
from kilotune.evaluation.metrics import macro_f1_scores
from kilotune.models.freeze import digests_of
from kilotune.models.source import locate
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.rendering.wording import wording
from kilotune.session.fine_tuning import render, tuning_job
from kilotune.session.loading import Loaded, begin_session, load
from kilotune.session.model_session import Session
from kilotune.training.tuning import Checked, tune

FIRST, ADDED, POOL, JUDGED = 50, 50, 600, 400
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


class Learnt(Protocol):
    """What has learnt from some articles."""

    def probabilities(self, asked: Sequence[Example]) -> list[list[float]]:
        """Of each label, in alphabetical order."""

    def predictions(self, asked: Sequence[Example]) -> list[str]:
        """Its answers."""


@dataclass(frozen=True)
class BagOfWords:
    """TF-IDF with logistic regression."""

    model: Pipeline

    def probabilities(self, asked: Sequence[Example]) -> list[list[float]]:
        """Nought for a label that was not learnt."""
        found = np.zeros((len(asked), len(LABELS)))
        known = [sorted(LABELS).index(label) for label in self.model.classes_]
        found[:, known] = self.model.predict_proba([example.text for example in asked])
        return found.tolist()

    def predictions(self, asked: Sequence[Example]) -> list[str]:
        """The likeliest labels."""
        return [str(label) for label in self.model.predict([example.text for example in asked])]


@dataclass(frozen=True)
class Tuned:
    """SmolLM2, as users ask it: probabilities of labels, and answers that are generated."""

    session: Session

    def probabilities(self, asked: Sequence[Example]) -> list[list[float]]:
        """The likelihood of each label as the whole answer, as shares."""
        session = self.session
        labels, model = session.prepared.labels, session.tunable.model
        found = session.prompting.scores(model, asked, labels, Silent(), "scoring")
        return [list(scores.probabilities) for scores in found]

    def predictions(self, asked: Sequence[Example]) -> list[str]:
        """What it generates, as labels."""
        return list(self.session.answer(self.session.tunable.model, asked, "judging").predictions)


@contextmanager
def words(train: Sequence[Example], seed: int) -> Iterator[Learnt]:
    """A bag of words that has learnt from `train`."""
    texts, labels = [e.text for e in train], references(train)
    yield BagOfWords(bag_of_words(texts).fit(texts, labels))


class SmolLM2:
    """The model in memory, with fresh adapters each time."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = overrides
        self.loaded: Loaded | None = None
        self.digests: dict[str, str] = {}
        self.checked: Checked | None = None

    @contextmanager
    def __call__(self, train: Sequence[Example], seed: int) -> Iterator[Learnt]:
        """Tuned on `train`."""
        recipe = load_recipe(
            settings={"data": {"train": "r8.csv", "task": "classify"}, "seed": seed},
            overrides=[*self.overrides, "tune.stopping.metric=none"],
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
            job = tuning_job(session, render(session)[0], [], Path(scratch), keep=False)
            tuning = tune(session.tunable, job, checked=self.checked)
        self.checked = Checked(tuning.agreement, tuning.cache)
        yield Tuned(session)
        self.loaded = replace(self.loaded, model=session.tunable.release())


@dataclass
class Bench:
    """What learns, what it is judged on, and where its answers are kept."""

    name: str
    learn: Callable[[Sequence[Example], int], AbstractContextManager[Learnt]]
    judged: Sequence[Example]
    out: Path

    def place(self, name: str, seed: int) -> Path:
        """The file of what was learnt once."""
        return self.out / f"{'-'.join([self.name, *name.split(), str(seed)])}.json"

    def read(self, name: str, seed: int) -> dict:
        """What is in it."""
        return json.loads(self.place(name, seed).read_text())

    def try_seed(self, every: Sequence[Example], seed: int, names: Sequence[str]) -> None:
        """Learn from the first, let each strategy choose, and learn with what it chose."""
        drawn = random.Random(seed).sample(list(every), FIRST + POOL)
        first, pool = drawn[:FIRST], drawn[FIRST:]
        if not self.place(ALONE, seed).exists():
            with self.learn(first, seed) as learnt:
                self.keep(ALONE, seed, learnt, probabilities=learnt.probabilities(pool))
        probabilities = np.array(self.read(ALONE, seed)["probabilities"])
        for name in names:
            if not self.place(name, seed).exists():
                chosen = STRATEGIES[name]([e.text for e in pool], probabilities, seed)
                added = [pool[index] for index in chosen]
                with self.learn([*first, *added], seed) as learnt:
                    self.keep(name, seed, learnt, classes=len({e.label for e in added}))

    def keep(self, name: str, seed: int, learnt: Learnt, **more: object) -> None:
        """Write down what is answered to the judged articles."""
        said = {"predictions": learnt.predictions(self.judged), **more}
        write_atomically(self.place(name, seed), to_json(said))


def table(bench: Bench, seeds: Sequence[int], names: Sequence[str]) -> str:
    """Means over the seeds, and the gain over chance: seeds are paired, and so are examples."""
    truth, labels = references(bench.judged), sorted(LABELS)

    def scores(name: str, seed: int) -> tuple[list[float], list[float]]:
        said = bench.read(name, seed)["predictions"]
        right = [float(a == b) for a, b in zip(said, truth, strict=True)]
        return right, macro_f1_scores(truth, said, labels)

    by_name = {name: np.array([scores(name, s) for s in seeds]) for name in (ALONE, *names)}
    lines = [
        f"{bench.name}: {len(seeds)} seeds, {len(truth)} judged articles",
        "",
        "| | accuracy | gain in points | macro-F1 | gain in points | classes chosen |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in by_name.items():
        cells = [name]
        for metric in (0, 1):
            cells.append(f"{found[:, metric].mean():.3f}")
            if name in (ALONE, "random"):
                cells.append("")
                continue
            other = found[:, metric] - by_name["random"][:, metric]
            gain = crossed_gain(np.zeros((1, len(truth))), other).figure(CONFIDENCE)
            cells.append(f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]")
        classes = [bench.read(name, seed).get("classes", 0) for seed in seeds]
        cells.append(f"{statistics.mean(classes):.1f}" if name != ALONE else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


LEARNERS = {"smollm2": SmolLM2, "words": lambda overrides: words}


def main() -> None:
    """Try."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=LEARNERS, default="smollm2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategy", action="append", choices=STRATEGIES)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    quieten_libraries()
    chosen.out.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(["random", *(chosen.strategy or STRATEGIES)]))
    every = examples("train")
    judged = examples("test", 2 * JUDGED)[:JUDGED]
    # Answers of other settings are other answers.
    name = "-".join([chosen.model, *chosen.overrides])
    bench = Bench(name, LEARNERS[chosen.model](chosen.overrides), judged, chosen.out)
    seeds = range(chosen.seeds)
    with TerminalProgress().bar("seeds", len(seeds)) as bar:
        for seed in seeds:
            bench.try_seed(every, seed, names)
            bar.advance()
    print(table(bench, seeds, names))


if __name__ == "__main__":
    main()
