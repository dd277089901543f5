"""What was exported answers in another process as the run did, without kilotune."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kilotune
from kilotune.data.samples import write_sample
from kilotune.exports import export
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from tests.support.records import written

PLAIN = Path(__file__).parent / "plain.py"


def conversations(run: Path, count: int) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Test prompts of a run as messages, and what its tuned model said to them."""
    folder = RunFolder(run)
    words = written(folder, "data.json")["wording"]
    rows = folder.read_predictions()[:count]
    asked = [
        [
            {"role": "system", "content": words["system"]},
            {"role": "user", "content": words["question"].replace("{text}", row["prompt"])},
        ]
        for row in rows
    ]
    return asked, [row["tuned_output"] for row in rows]


def answered(run: Path, base: Path, out: Path, asked: list[list[dict[str, str]]]) -> Any:
    """What plain transformers and peft say with the adapter and with the merged model.

    In a process of its own, which has not seen kilotune.
    """
    folders = [export(run, "adapter", out / "a"), base, export(run, "merged", out / "m"), "-"]
    done = subprocess.run(
        [sys.executable, "-I", PLAIN, *folders],
        input=json.dumps(asked), capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_tiny_adapter_and_its_merged_model_answer_as_the_run_did(
    llama_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    asked, said = conversations(llama_run, 8)
    adapter, merged = answered(llama_run, tiny_model, tmp_path, asked)
    assert any(said)
    assert adapter["answers"] == merged["answers"] == said
    assert np.abs(np.subtract(merged["logits"], adapter["logits"])).max() < 1e-4


@pytest.mark.slow
def test_the_real_model_answers_in_another_process_as_the_run_did(
    smollm2: Path, tmp_path: Path
) -> None:
    train, test = write_sample("movie-reviews", tmp_path)
    for file, count in ((train, 20), (test, 10)):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[: count + 1]), encoding="utf-8")
    settings = {"data": {"train": str(train), "test": str(test)}, "model": {"precision": "float32"}}
    overrides = ["tune.epochs=1", "tune.layers=top:4", "judge.train_sample=4"]
    run = kilotune.run(load_recipe(settings=settings, overrides=overrides), tmp_path / "run").folder
    asked, said = conversations(run, 10)
    adapter, merged = answered(run, smollm2, tmp_path, asked)
    assert any(said)
    assert adapter["answers"] == merged["answers"] == said
    assert np.abs(np.subtract(merged["logits"], adapter["logits"])).max() < 1e-4
