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

from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.models.qwen import load_qwen
from tests.support.earlier import without_identity

IDS = torch.tensor([[4, 9, 33, 2, 60, 61, 17]])


def logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(IDS).logits.numpy()


def tuned(qwen_run: Path, qwen_base: Path) -> np.ndarray:
    return logits(PeftModel.from_pretrained(load_qwen(qwen_base), qwen_run / "adapter"))


def test_merged_is_a_plain_checkpoint_with_all_that_belongs_to_it(
    qwen_run: Path, qwen_base: Path, tmp_path: Path
) -> None:
    out = export(qwen_run, "merged", tmp_path / "out" / "merged")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert np.abs(logits(model) - tuned(qwen_run, qwen_base)).max() < 1e-4
    assert np.abs(logits(model) - logits(load_qwen(qwen_base))).max() > 1e-2
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == (qwen_run / "adapter" / "chat_template.jinja").read_text()
    assert GenerationConfig.from_pretrained(out).eos_token_id == [258, 256]
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def test_an_adapter_is_copied_and_for_qwens_own_code_renamed(
    qwen_run: Path, tmp_path: Path
) -> None:
    one, other = (
        export(qwen_run, "adapter", tmp_path / "a"),
        export(qwen_run, "qwen-adapter", tmp_path / "q"),
    )
    names = {path.name for path in (qwen_run / "adapter").iterdir()}
    assert {path.name for path in one.iterdir()} == names | {"kilotune.json"}
    settings = json.loads((other / "adapter_config.json").read_text())
    assert settings["target_modules"] == [
        "attn.c_attn", "attn.c_proj", "mlp.c_proj", "mlp.w1", "mlp.w2"
    ]  # fmt: skip
    assert {path.name for path in other.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
        "generation_config.json", "kilotune.json",
    }  # fmt: skip


def test_copies_of_an_archived_run_can_be_written_to(qwen_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(qwen_run, run)
    for path in (*run.rglob("*"), run):
        path.chmod(path.stat().st_mode & ~0o222)
    out = export(run, "adapter", tmp_path / "a")
    assert all(path.stat().st_mode & 0o200 for path in (*out.rglob("*"), out))


def test_nothing_is_overwritten_and_what_has_no_such_form_is_refused(
    qwen_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="no form 'onnx'") as caught:
        export(qwen_run, "onnx", tmp_path / "x")
    assert "adapter, merged, qwen-adapter" in caught.value.fix
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(KilotuneError, match="left as it is"):
        export(qwen_run, "merged", tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "kept"
    other = tmp_path / "other"
    shutil.copytree(qwen_run, other)
    recipe = other / "recipe.yaml"
    text = recipe.read_text()
    name = next(line for line in text.splitlines() if line.startswith("  name: "))
    recipe.write_text(text.replace(name, f"  name: {tiny_model}"))
    without_identity(other)
    with pytest.raises(KilotuneError, match="no first-generation Qwen"):
        export(other, "qwen-adapter", tmp_path / "x")
    shutil.rmtree(other / "adapter")
    shutil.copytree(tiny_model, other / "model")
    with pytest.raises(KilotuneError, match="there is no adapter"):
        export(other, "adapter", tmp_path / "x")
    (other / "verdict.json").unlink()
    with pytest.raises(KilotuneError, match="not finished"):
        export(other, "merged", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "other"]


def test_gguf_files_need_llama_cpps_converter_and_say_how_to_get_it(
    qwen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(KilotuneError, match="converter is not there") as caught:
        export(qwen_run, "gguf", tmp_path / "out")
    assert "kilotune fetch llama.cpp" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_gguf_files_are_of_16_and_8_bits_with_the_decoding_inside(
    qwen_run: Path, tmp_path: Path, converter_stand_in: Path
) -> None:
    out = export(qwen_run, "gguf", tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        "README.md", "kilotune.json", "tiny-films-F16.gguf", "tiny-films-Q8_0.gguf"
    }  # fmt: skip
    for kind in ("F16", "Q8_0"):
        told = json.loads((out / f"tiny-films-{kind}.gguf").read_text())
        assert told[0] == kind.lower()
        assert told[1]["general.sampling.temp"] == 0
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(told[2])
    converter_stand_in.write_text("import sys\nsys.exit('NotImplementedError: no such model')")
    with pytest.raises(KilotuneError, match="no such model"):
        export(qwen_run, "gguf", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_command_says_where_and_exits_2_on_a_wrong_form(qwen_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["export", str(qwen_run), "--to", "qwen-adapter", "-o", str(out), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["out"] == str(out)
    assert (out / "adapter_model.safetensors").is_file()
    assert CliRunner().invoke(app, asked).exit_code == 2
