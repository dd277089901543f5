"""The whole job on a tiny first-generation Qwen: no code of its own, no row beyond its length."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import kilotune
from kilotune.errors import KilotuneError
from kilotune.models.qwen import load_qwen
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.plan import plan
from kilotune.workflows.predict import predict
from kilotune.workflows.render import render
from kilotune.workflows.run import Run
from tests.support.first_qwen import write_tiny_qwen
from tests.support.records import written
from tests.support.tiny import labelled_csv


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("base"), seq_length=260)


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    always = ["model.precision=float32", "tune.learning_rate=1e-2", "judge.bootstrap_samples=200"]
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=[*always, *overrides])


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    long_enough = ["tune.epochs=8", "tune.stopping.patience=8"]
    data = labelled_csv(folder / "films.csv", 80)
    return kilotune.run(recipe(data, base, *long_enough), folder / "run")


def with_long_rows(file: Path, *rows: int) -> Path:
    """Those lines of a labelled file made longer than the model's length."""
    lines = file.read_text(encoding="utf-8").splitlines()
    for row in rows:
        text, label = lines[row - 1].split(",")
        lines[row - 1] = f"{text} {'and so on ' * 20}{row},{label}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_it_learns_and_its_adapter_is_an_ordinary_one(finished: Run, base: Path) -> None:
    records = RunFolder(finished.folder)
    losses = [line["loss"] for line in records.read_metrics() if "loss" in line]
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    settings = json.loads((finished.weights / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == base.name
    assert "gate_proj" in settings["target_modules"]
    proof = written(records, "freeze_proof.json")
    assert "base_model.model.model.embed_tokens.weight" in proof["frozen"]
    decoding = json.loads((finished.weights / "generation_config.json").read_text())
    assert decoding["eos_token_id"] == [258, 256]  # the template's, and the model's own
    model = PeftModel.from_pretrained(load_qwen(base), finished.weights)
    plain = load_qwen(base)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert (model(ids).logits - plain(ids).logits).abs().max() > 0.1


def test_render_and_plan_take_the_folder(base: Path, labelled: Path) -> None:
    seen = render(recipe(labelled, base))
    assert len(seen.rendered.renderings) == 40
    assert "beyond-length" not in {finding.code for finding in seen.findings}
    assert plan(recipe(labelled, base)).work.counted


def test_chat_models_end_turns_as_chatml_does_and_base_models_are_told_it_is_new(
    base: Path, labelled: Path, tmp_path: Path
) -> None:
    chat = write_tiny_qwen(tmp_path, chat=True)
    found = {f.code for f in render(recipe(labelled, chat)).template.findings}
    assert found == {"template-chosen"}
    found = {f.code for f in render(recipe(labelled, base)).template.findings}
    assert found == {"template-chosen", "stop-differs"}
    plain = render(recipe(labelled, base, "model.chat_template=plain"))
    assert plain.template.stop_id == 256
    assert "stop-differs" not in {f.code for f in plain.template.findings}


def test_weights_that_are_not_read_stop_the_run_before_anything_is_written(
    labelled: Path, tmp_path: Path
) -> None:
    base = write_tiny_qwen(tmp_path / "base", index=False)
    for shard in base.glob("*.safetensors"):
        shard.rename(base / f"pytorch_{shard.stem}.bin")
    with pytest.raises(KilotuneError, match="pickles"):
        kilotune.run(recipe(labelled, base), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_beyond_its_length_stop_the_run_before_any_training(
    base: Path, labelled: Path, tmp_path: Path
) -> None:
    data = with_long_rows(labelled, 5, 9, 13, 22)
    findings = {finding.code: finding for finding in render(recipe(data, base)).findings}
    rows = ("data:5", "data:9", "data:13", "data:22")
    assert findings["beyond-length"].rows == rows
    with pytest.raises(KilotuneError, match="260 tokens") as caught:
        kilotune.run(recipe(data, base), tmp_path / "run")
    assert all(row in str(caught.value) for row in rows)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    run = kilotune.run(recipe(data, base, "data.max_length=250", "tune.epochs=1"), tmp_path / "cut")
    assert run.weights.is_dir()


@pytest.mark.parametrize("method", ["lora", "top_layers"])
def test_prediction_refuses_rows_beyond_its_length_and_answers_the_others(
    finished: Run, base: Path, labelled: Path, tmp_path: Path, method: str
) -> None:
    run = finished.folder
    if method == "top_layers":
        changes = ["tune.method=top_layers", "tune.layers=top:1", "tune.epochs=1"]
        run = kilotune.run(recipe(labelled, base, *changes), tmp_path / "run").folder
        AutoModelForCausalLM.from_pretrained(run / "model")  # a Qwen 2 to anybody else
    data = with_long_rows(labelled, 4)
    done = predict(run, data, tmp_path / "out.csv")
    assert done.not_answered == {"file:4": "beyond-length"}
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["not_answered"] for row in rows] == ["", "", "beyond-length"] + [""] * 37
    if method == "lora":  # tuned for long enough to answer with labels
        said = [row["prediction"] for row in rows]
        assert said.pop(2) == ""
        assert set(said) <= {"good", "bad"}
