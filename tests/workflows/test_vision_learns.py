"""That images are truly learnt from: real digits, a random Qwen2-VL, answers by generation."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.evaluation.judgement import Judgement
from kilotune.recipe.load import load_recipe
from kilotune.workflows.run import Run, run
from tests.support.records import written
from tests.support.tiny_vision import write_digits, write_learner

ALL_PARTS = {
    "method": "full",
    "parts": ["language", "merger", "vision"],
    "learning_rate": 2e-3,
    "batch_size": 16,
}


def tuned(folder: Path, data: Path, model: Path, **tune: Any) -> Run:
    settings = {
        "data": {"train": str(data), "system": "", "question": "{text}"},
        "model": {"name": str(model), "precision": "float32"},
        "tune": {"stopping": {"metric": "accuracy", "patience": 100}, **tune},
        "judge": {"bootstrap_samples": 200},
    }
    return run(load_recipe(settings=settings), folder)


def accuracy(done: Run, system: str) -> float:
    judged: Judgement = next(j for j in done.judgements if j.name == system)
    return judged.figures["accuracy"].value


@pytest.mark.slow
def test_a_few_epochs_on_digits_teach_a_random_model_to_read_most(tmp_path: Path) -> None:
    data = write_digits(tmp_path, range(1000), "Digit?", str)
    done = tuned(tmp_path / "run", data, write_learner(tmp_path / "model"), epochs=4, **ALL_PARTS)
    assert accuracy(done, "base") < 0.2
    assert accuracy(done, "tuned") > 0.6


@pytest.mark.long
def test_digits_are_read_and_adapters_then_shift_the_task(tmp_path: Path) -> None:
    data = write_digits(tmp_path, range(1000), "Digit?", str)
    first = tuned(tmp_path / "one", data, write_learner(tmp_path / "model"), epochs=8, **ALL_PARTS)
    assert accuracy(first, "tuned") >= 0.85
    shifted = write_digits(tmp_path, range(1000), "Odd?", lambda digit: str(digit % 2))
    second = tuned(tmp_path / "two", shifted, first.weights, epochs=5, learning_rate=5e-3)
    assert accuracy(second, "base") < 0.4
    assert accuracy(second, "tuned") >= 0.85
    proof = written(second.folder, "freeze_proof.json")
    assert sum(".visual." in name for name in proof["frozen"]) > 20
    assert not any(".visual." in name for name in proof["moved"])
