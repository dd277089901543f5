"""The demo's job on the real small model and real film reviews: minutes, and honest figures."""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.data.files.writers import write_table
from kilotune.data.samples import write_sample
from kilotune.evaluation import decoding_race
from kilotune.generation.decoding import generate
from kilotune.generation.prompts import Prompts
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import DecodingSettings
from kilotune.runs.record import VALIDATION, RunFolder
from kilotune.workflows.run import Run
from tests.support.records import written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_sample("movie-reviews", tmp_path_factory.mktemp("reviews"))


@pytest.fixture(scope="module")
def auto(
    reviews: tuple[Path, Path], smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("auto")
    # Less than the demo: `make test-long` does all of it, with other seeds.
    some = list(csv.DictReader(reviews[1].open(encoding="utf-8")))[:150]
    write_table(folder / "some.csv", ("text", "label"), some)
    settings = {"data": {"train": str(reviews[0]), "test": str(folder / "some.csv")}}
    less = ["tune.epochs=2", "judge.train_sample=60"]
    return kilotune.run(load_recipe(settings=settings, overrides=less), folder / "run")


def test_the_sample_is_real_balanced_and_without_leakage(reviews: tuple[Path, Path]) -> None:
    parts = [list(csv.DictReader(path.open(encoding="utf-8"))) for path in reviews]
    assert [len(part) for part in parts] == [300, 500]
    for part in parts:
        positive = sum(row["label"] == "positive" for row in part)
        assert 0.4 < positive / len(part) < 0.6
    texts = [{row["text"] for row in part} for part in parts]
    assert not texts[0] & texts[1]


def test_the_tuned_model_beats_every_baseline(auto: Run) -> None:
    by_name = {judgement.name: judgement for judgement in auto.judgements}
    tuned = by_name["tuned"]
    for name in ("majority", "tfidf"):
        for figure in ("accuracy", "macro_f1"):
            ours, theirs = tuned.figures[figure], by_name[name].figures[figure]
            assert ours.low > theirs.high, (name, figure, str(ours), str(theirs))
    assert tuned.stopped == 1.0
    assert tuned.unreadable == 0
    assert auto.verdict.name in {"healthy", "overfit"}
    assert tuned.figures["accuracy"].value > by_name["base"].figures["accuracy"].value
    assert auto.tuned_against_base.p_value < 0.05


def test_plain_peft_loads_the_adapter_and_says_the_same(auto: Run, smollm2: Path) -> None:
    folder = RunFolder(auto.folder)
    environment = written(folder, "environment.json")
    dtype = getattr(torch, environment["dtype"].removeprefix("torch."))
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=dtype)
    model = PeftModel.from_pretrained(base, auto.weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(auto.weights)
    wording = written(folder, "data.json")["wording"]
    rows = folder.read_predictions()
    conversations = [
        [
            {"role": "system", "content": wording["system"]},
            {"role": "user", "content": wording["question"].replace("{text}", row["prompt"])},
        ]
        for row in rows
    ]
    prompts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True)["input_ids"]
    config = GenerationConfig.from_pretrained(auto.weights)
    said = generate(model, tokenizer, Prompts(prompts), config, seed=0, progress=Silent())
    others = [a for a, row in zip(said, rows, strict=True) if a.text != row["tuned_output"]]
    # In bfloat16 other batches may tip an answer that stands on edge.
    assert len(others) <= (0 if dtype == torch.float32 else 2)


def test_ways_of_decoding_are_tried_on_the_run_and_greedy_scores_as_it_was_judged(
    auto: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = ({}, {"repetition_penalty": 1.1}, {"temperature": 1.0, "top_k": 50})

    def few(limits: DecodingSettings) -> list[DecodingSettings]:
        return [limits.model_copy(update=settings) for settings in tried]

    monkeypatch.setattr(decoding_race, "candidates", few)
    run = shutil.copytree(auto.folder, tmp_path / "run")
    done = CliRunner().invoke(app, ["decode", str(run), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    ids = written(run, "data.json")["split"]["validation"]
    half = len(ids) // 2
    assert (found["raced"], found["decided"]) == (half, len(ids) - half)
    assert set(found["proof"]) == {
        "greedy, repetition penalty 1.1",
        "temperature 1, top-k 50",
    }
    right = {row["id"]: row["tuned_right"] for row in RunFolder(run).read_predictions(VALIDATION)}
    deciding = random.Random(0).sample(ids, len(ids))[half:]
    judged = sum(right[id] for id in deciding) / len(deciding)
    for adoption in found["proof"].values():
        # By the model that has not seen them. In other batches one answer on edge may tip.
        assert adoption["before"] == pytest.approx(judged, abs=1.1 / len(deciding))
    chosen = GenerationConfig.from_pretrained(run / "adapter")
    assert chosen.do_sample == (found["chosen"]["temperature"] > 0)
    assert chosen.repetition_penalty == found["chosen"]["repetition_penalty"]
