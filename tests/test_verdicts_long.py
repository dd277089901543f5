"""Runs that were really made to go wrong, each in its own way: every one gets its verdict.

A random model of 40,000 weights, trained whole, learns such files in seconds, or does not, for the
reasons that a large one would not; what takes more than that is done with SmolLM2.
`pytest -m long -n 0 -s tests/test_verdicts_long.py` prints them.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import kilotune
from kilotune import session
from kilotune.data.finding import Finding
from kilotune.evaluate.verdict import Verdict
from kilotune.generate.answer import Prompting
from kilotune.recipe.load import load_recipe
from kilotune.render.labels import Rendering
from tests.tiny import byte_tokenizer

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

STOP = byte_tokenizer().eos_token_id
Row = dict[str, str]
WORDS = {"good": ("great", "lovely"), "bad": ("awful", "boring")}


def films(count: int, *, start: int = 0, noise: float = 0.0, seed: int = 0) -> list[Row]:
    """Rows whose label can be read off the text, but for the share of `noise`."""
    rng = random.Random(seed)
    rows = []
    for number in range(start, start + count):
        label = rng.choice(("good", "bad"))
        said = f"film {number} was {rng.choice(WORDS[label])}"
        other = {"good": "bad", "bad": "good"}[label]
        rows.append({"text": said, "label": other if rng.random() < noise else label})
    return rows


def shuffled(rows: list[Row]) -> list[Row]:
    """The same texts with labels that mean nothing."""
    labels = [row["label"] for row in rows]
    random.Random(1).shuffle(labels)
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


def rare(rows: list[Row]) -> list[Row]:
    """One row in twenty bad, and nothing in the texts that says so."""
    return [
        {"text": row["text"], "label": "bad" if index % 20 == 0 else "good"}
        for index, row in enumerate(shuffled(rows))
    ]


def repeated(rows: list[Row], times: int, noise: float) -> list[Row]:
    """Every text several times, a share of them with the other label."""
    rng = random.Random(2)
    other = {"good": "bad", "bad": "good"}
    return [
        {**row, "label": other[row["label"]] if rng.random() < noise else row["label"]}
        for row in rows
        for _ in range(times)
    ]


def answered(count: int, start: int = 0) -> list[Row]:
    """Prompts and free answers, of which the words follow from the prompt's."""
    rng = random.Random(3)
    animals = ("cat", "dog", "cow", "hen")
    rows = []
    for number in range(start, start + count):
        animal = rng.choice(animals)
        rows.append({"prompt": f"{number} a {animal}", "completion": f"the {animal} it is"})
    return rows


@dataclass(frozen=True)
class Case:
    """A run and the verdict that it must get; `broken` patches what a run cannot get wrong.

    Not `small` are those of SmolLM2, by the preset.
    """

    verdict: str
    train: list[Row]
    settings: tuple[str, ...] = ()
    validation: list[Row] | None = None
    broken: Callable[[pytest.MonkeyPatch], None] = lambda patch: None
    small: bool = True


def untrained_stop(patch: pytest.MonkeyPatch) -> None:
    """The token that ends an answer is not trained."""
    plain = session.Session.render

    def unended(rendering: Rendering) -> Rendering:
        # The last trained tokens are the one that ends the turn, and what may follow it.
        places = [index for index, trained in enumerate(rendering.label_mask) if trained]
        stop = next(index for index in places if rendering.token_ids[index] == STOP)
        mask = [trained and index < stop for index, trained in enumerate(rendering.label_mask)]
        return replace(rendering, label_mask=tuple(mask))

    def render(self: session.Session) -> tuple[list[Rendering], list[Rendering], list[Finding]]:
        train, validation, findings = plain(self)
        return [*map(unended, train)], [*map(unended, validation)], findings

    patch.setattr(session.Session, "render", render)


def another_prompt(patch: pytest.MonkeyPatch) -> None:
    """Generation starts from another prompt than was trained: without the answer's opening."""

    def within(self: Prompting, prompt: list[int]) -> tuple[int, ...]:
        return tuple(prompt[: len(prompt) // 2])

    patch.setattr(Prompting, "_within_limit", within)


LAST = "tune.stopping.metric=none"
CASES = {
    "good": Case("healthy", films(240)),
    "good, SmolLM2": Case("healthy", films(160), small=False),
    "good, free text": Case("healthy", answered(240), ("tune.epochs=24", LAST)),
    "rate 1e-6": Case("underfit", films(240), ("tune.learning_rate=1e-6",)),
    "adapters, classic rate": Case(
        "underfit", films(240), ("tune.method=lora", "tune.learning_rate=1e-5")
    ),
    "free text, rate 1e-6": Case("underfit", answered(240), ("tune.learning_rate=1e-6",)),
    "rate 1e-1": Case(
        "unstable", films(160), ("tune.learning_rate=1e-1", "tune.epochs=1", LAST), small=False
    ),
    "rate 3, no clipping": Case(
        "unstable", films(240), ("tune.learning_rate=3", "tune.max_grad_norm=1e9", LAST)
    ),
    "30 epochs on 40 shuffled": Case(
        "no_signal",
        shuffled(films(40)),
        ("tune.epochs=30", "tune.learning_rate=1e-3", "tune.stopping.every=1000", LAST),
        shuffled(films(60, start=40)),
        small=False,
    ),
    "one rare class": Case("no_signal", rare(films(240)), (), rare(films(100, start=240))),
    "learnt by heart": Case(
        "overfit",
        films(60, noise=0.2),
        ("tune.epochs=60", LAST),
        films(150, start=60, noise=0.15, seed=5),
    ),
    "stop token not trained": Case("template_fault", films(240), (), None, untrained_stop),
    "another prompt": Case("template_fault", films(240), (), None, another_prompt),
    "no room for answers": Case("template_fault", films(240), ("decoding.max_new_tokens=1",)),
    "noise of 40%": Case("data_fault", repeated(films(60), 4, 0.4)),
    "both labels": Case("data_fault", repeated(films(120), 2, 0.5)),
    "4 to validate by": Case("unavailable", films(100), (), films(4, start=100)),
}


def write(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def verdict(case: Case, model: Path, folder: Path) -> Verdict:
    free = "prompt" in case.train[0]
    validation = case.validation or (answered(80, 500) if free else films(80, start=500, seed=7))
    test = answered(20, 900) if free else films(20, start=900, seed=9)
    data = {
        "train": write(folder / "train.jsonl", case.train),
        "validation": write(folder / "validation.jsonl", validation),
        "test": write(folder / "test.jsonl", test),
        **({"task": "generate"} if free else {"system": "Good or bad?", "question": "{text}"}),
    }
    usual = ["judge.bootstrap_samples=400", "judge.train_sample=60", "judge.base_check=say"]
    if case.small:
        usual += ["model.precision=float32", "tune.method=full", "tune.learning_rate=3e-3"]
        usual += ["tune.epochs=8"]
    settings = {"data": data, "model": {"name": str(model) if case.small else "smollm2"}}
    recipe = load_recipe(settings=settings, overrides=[*usual, *case.settings])
    return kilotune.run(recipe, folder / "run").verdict


@pytest.mark.parametrize("name", CASES)
def test_each_constructed_run_gets_its_verdict(
    name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    case.broken(monkeypatch)
    found = verdict(case, tiny_model, tmp_path)
    print(f"{name:26} {case.verdict:15} {found.name:15} {found.confidence:7} {found.summary}")
    assert found.name == case.verdict
    assert all(step.arguments.startswith("--set ") for step in found.next_steps)
