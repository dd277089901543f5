"""A run's weights in every form, as other programs load them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.export import export
from kilotune.models.qwen import load_qwen
from kilotune.recipe.load import load_recipe
from tests.first_qwen import write_tiny_qwen
from tests.tiny import labelled_csv

IDS = torch.tensor([[4, 9, 33, 2, 60, 61, 17]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = labelled_csv(folder / "films.csv")
    settings = {"data": {"train": str(data)}, "model": {"name": str(base), "precision": "float32"}}
    overrides = ["tune.epochs=1", "tune.learning_rate=1e-2", "judge.bootstrap_samples=200"]
    return kilotune.run(load_recipe(settings=settings, overrides=overrides), folder / "run").folder


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(IDS).logits.numpy()


def tuned(run: Path, base: Path) -> np.ndarray:
    return logits(PeftModel.from_pretrained(load_qwen(base), run / "adapter"))


def test_merged_is_a_plain_checkpoint_with_all_that_belongs_to_it(
    run: Path, base: Path, tmp_path: Path
) -> None:
    out = export(run, "merged", tmp_path / "out" / "merged")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert np.abs(logits(model) - tuned(run, base)).max() < 1e-4
    assert np.abs(logits(model) - logits(load_qwen(base))).max() > 1e-2
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == (run / "adapter" / "chat_template.jinja").read_text()
    assert GenerationConfig.from_pretrained(out).eos_token_id == [258, 256]
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def test_an_adapter_is_copied_and_for_qwens_own_code_renamed(run: Path, tmp_path: Path) -> None:
    one, other = export(run, "adapter", tmp_path / "a"), export(run, "qwen-adapter", tmp_path / "q")
    names = {path.name for path in (run / "adapter").iterdir()}
    assert {path.name for path in one.iterdir()} == names
    settings = json.loads((other / "adapter_config.json").read_text())
    assert settings["target_modules"] == [
        "attn.c_attn", "attn.c_proj", "mlp.c_proj", "mlp.w1", "mlp.w2"
    ]  # fmt: skip
    assert {path.name for path in other.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "generation_config.json",
    }  # fmt: skip


def test_nothing_is_overwritten_and_what_has_no_such_form_is_refused(
    run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="no form 'gguf'") as caught:
        export(run, "gguf", tmp_path / "x")
    assert "adapter, merged, qwen-adapter" in caught.value.fix
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(KilotuneError, match="left as it is"):
        export(run, "merged", tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "kept"
    other = tmp_path / "other"
    shutil.copytree(run, other)
    recipe = other / "recipe.yaml"
    text = recipe.read_text()
    name = next(line for line in text.splitlines() if line.startswith("  name: "))
    recipe.write_text(text.replace(name, f"  name: {tiny_model}"))
    with pytest.raises(KilotuneError, match="no first-generation Qwen"):
        export(other, "qwen-adapter", tmp_path / "x")
    (other / "adapter").rename(other / "model")
    with pytest.raises(KilotuneError, match="there is no adapter"):
        export(other, "adapter", tmp_path / "x")
    (other / "verdict.json").unlink()
    with pytest.raises(KilotuneError, match="not finished"):
        export(other, "merged", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "other"]


def test_the_command_says_where_and_exits_2_on_a_wrong_form(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["export", str(run), "--to", "qwen-adapter", "-o", str(out), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["out"] == str(out)
    assert (out / "adapter_model.safetensors").is_file()
    assert CliRunner().invoke(app, asked).exit_code == 2
