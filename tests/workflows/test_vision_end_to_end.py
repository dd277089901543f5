"""Pictures all the way: real digits as PNG files, a tiny random Qwen2-VL, answers to new ones."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.example import Image
from kilotune.data.images.pixels import open_picture
from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.recipe.load import load_recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.runs.record import RunFolder
from kilotune.training import tuning
from kilotune.workflows.predict import predict
from kilotune.workflows.run import run
from tests.support.assets import qwen_ranks
from tests.support.records import written
from tests.support.tiny_vision import even_or_odd, write_digits, write_kind, write_real_vocabulary

ASKED = "Is this digit even or odd?"


def test_a_run_on_pictures_ends_in_an_adapter_that_answers_about_new_ones(tmp_path: Path) -> None:
    model = write_kind("qwen2_vl", tmp_path / "model")
    data = write_digits(tmp_path, range(40), ASKED, even_or_odd)
    settings = {
        "data": {"train": str(data)},
        "model": {"name": str(model), "precision": "float32", "max_pixels": 3136},
        "tune": {"epochs": 1, "batch_size": 4},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    done = run(load_recipe(settings=settings), tmp_path / "run")
    judgement = written(done.folder, "judgement.json")
    assert judgement["tuning"]["agreement"]["path"] == "packed"
    assert judgement["tuning"]["agreement"]["gradient_error"] < 1e-4
    proof = written(done.folder, "freeze_proof.json")
    assert any(".visual." in name for name in proof["frozen"])
    assert not any(".visual." in name for name in [*proof["moved"], *proof["unmoved"]])
    assert {"processor_config.json", "chat_template.jinja", "adapter_model.safetensors"} <= {
        path.name for path in done.weights.iterdir()
    }
    prompts = [row["prompt"] for row in RunFolder(done.folder).read_predictions()]
    assert all(".png]Is this digit" in prompt for prompt in prompts)
    assert ".png]" in done.report.read_text(encoding="utf-8")

    new = write_digits(tmp_path, range(50, 54), ASKED, even_or_odd)
    found = predict(done.folder, new, tmp_path / "said.csv")
    assert (found.rows, found.not_answered) == (4, {})
    rows = list(csv.DictReader((tmp_path / "said.csv").open()))
    assert [row["image"] for row in rows] == ["50.png", "51.png", "52.png", "53.png"]

    merged = export(done.folder, "merged", tmp_path / "merged")
    base = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, done.weights).eval()
    whole = AutoModelForImageTextToText.from_pretrained(merged, dtype=torch.float32).eval()
    inputs = AutoProcessor.from_pretrained(merged)(
        text="<|vision_start|><|image_pad|><|vision_end|>Odd?",
        images=[open_picture(Image("50.png", str(tmp_path)))],
        return_tensors="pt",
    )
    with torch.no_grad():
        assert torch.allclose(adapted(**inputs).logits, whole(**inputs).logits, atol=1e-4)


def test_changed_pictures_are_trained_on_others_in_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Rendering] = {}
    pack = tuning.pack

    def noted(batch: Sequence[Rendering], *args: Any, **kwargs: Any) -> Any:
        seen.update({rendering.example_id: rendering for rendering in batch})
        return pack(batch, *args, **kwargs)

    monkeypatch.setattr(tuning, "pack", noted)
    model = write_kind("qwen2_vl", tmp_path / "model")
    settings = {
        "data": {"train": str(write_digits(tmp_path, range(20), ASKED, even_or_odd))},
        "model": {"name": str(model), "precision": "float32", "max_pixels": 3136},
        "augment": {"operations": ["brightness", "rotate"], "fresh": True},
        "tune": {"epochs": 2, "batch_size": 4},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    folder = RunFolder(run(load_recipe(settings=settings), tmp_path / "run").folder)
    told = written(folder, "augmentation.json")
    assert all(count["kept"] > 0 for count in told["counts"].values())
    made = {row["id"]: row["parent"] for row in told["examples"]}
    originals = {*written(folder, "data.json")["split"]["train"]} - made.keys()
    steps = written(folder, "judgement.json")["tuning"]["steps"]
    assert steps == 2 * -(-(len(originals) + len(made) // 2) // 4)
    assert {*made, *originals} <= seen.keys()
    pictures = {
        id: np.asarray(open_picture(image)).tobytes()
        for id in (*made, *originals)
        for image in seen[id].images
    }
    assert all(pictures[id] != pictures[parent] for id, parent in made.items())
    assert len({*pictures.values()}) == len(pictures)


def test_images_for_a_model_of_texts_stop_before_anything_is_written(
    tmp_path: Path, tiny_model: Path
) -> None:
    data = write_digits(tmp_path, range(20), ASKED, even_or_odd)
    settings = {"data": {"train": str(data)}, "model": {"name": str(tiny_model)}}
    with pytest.raises(KilotuneError, match="model of texts alone") as caught:
        run(load_recipe(settings=settings), tmp_path / "run")
    assert "data:" in caught.value.what
    assert not (tmp_path / "run").exists()


def test_texts_alone_are_tuned_on_a_model_that_sees(tmp_path: Path, labelled: Path) -> None:
    model = write_kind("qwen2_vl", tmp_path / "model")
    settings = {
        "data": {"train": str(labelled)},
        "model": {"name": str(model), "precision": "float32"},
        "tune": {"epochs": 1, "layers": "top:1"},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    done = run(load_recipe(settings=settings), tmp_path / "run")
    tuning = written(done.folder, "judgement.json")["tuning"]
    assert tuning["agreement"]["path"] == "packed"
    assert tuning["cache"]["used"]


@pytest.mark.slow
def test_a_qwen2_vl_of_the_real_vocabulary_goes_from_check_to_export(tmp_path: Path) -> None:
    model = write_real_vocabulary(tmp_path / "model", qwen_ranks(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|vision_start|>", "<|image_pad|>"])
    assert ids == [151645, 151652, 151655]
    data = write_digits(tmp_path, range(40), "这个数字是奇数吗？", even_or_odd)
    options = ("--set", f"model.name={model}", "--set", "model.max_pixels=3136", "--json")
    checked = CliRunner().invoke(app, ["check", str(data), "--json"])
    assert checked.exit_code in (0, 1), checked.output
    assert [f for f in json.loads(checked.stdout)["findings"] if f["severity"] == "error"] == []
    rendered = CliRunner().invoke(app, ["render", str(data), *options])
    assert rendered.exit_code == 0, rendered.output
    assert "<|image_pad|>" in rendered.stdout

    settings = {
        "data": {"train": str(data)},
        "model": {"name": str(model), "precision": "float32", "max_pixels": 3136},
        "tune": {"epochs": 1},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    done = run(load_recipe(settings=settings), tmp_path / "run")
    tuned = next(system for system in done.judgements if system.name == "tuned")
    assert tuned.examples == 8
    assert GenerationConfig.from_pretrained(done.weights).eos_token_id == [151645]
    merged = export(done.folder, "merged", tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(merged).convert_tokens_to_ids("<|image_pad|>") == 151655
    written = AutoModelForImageTextToText.from_pretrained(merged)
    assert written.get_input_embeddings().num_embeddings == len(tokenizer) == 151657
