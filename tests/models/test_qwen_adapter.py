"""Adapters under the names of Qwen's own code: the same update of every weight, exactly."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file

from kilotune.errors import KilotuneError
from kilotune.models.lora import attach_lora
from kilotune.models.qwen import load_qwen
from kilotune.models.qwen_adapter import qwen_adapters, write_qwen_adapter
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings
from tests.support.first_qwen import qwen_logits, qwen_settings, qwen_weights, write_tiny_qwen

IDS = [5, 250, 300, 41, 41, 7, 88, 460, 1, 2, 3]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("base"))


def tuned(base: Path, **settings: Any) -> Any:
    """Every adapter moved away from its start, where B is zero."""
    model = attach_lora(load_qwen(base), LoraSettings(learning_rate=1e-3, **settings), seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    return model.eval()


def own_modules(config: dict[str, Any]) -> Any:
    """Modules with the names and shapes that Qwen's own code has, nothing in them computing."""
    width, half = config["hidden_size"], config["intermediate_size"] // 2
    shapes = {
        "attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width),
        "mlp.w1": (width, half), "mlp.w2": (width, half), "mlp.c_proj": (half, width),
    }  # fmt: skip
    root = torch.nn.Module()
    root.prepare_inputs_for_generation = None  # PEFT looks for it
    for layer in range(config["num_hidden_layers"]):
        for path, shape in shapes.items():
            at = root
            *parents, last = f"transformer.h.{layer}.{path}".split(".")
            for name in parents:
                if not hasattr(at, name):
                    at.add_module(name, torch.nn.Module())
                at = getattr(at, name)
            at.add_module(last, torch.nn.Linear(*shape))
    return root


@pytest.mark.parametrize(
    ("settings", "fused"),
    [
        ({}, 24),
        ({"target_modules": ("q_proj", "v_proj"), "layers": "top:1", "rank": 4}, 8),
        ({"target_modules": ("v_proj", "down_proj"), "layers": (0, 2)}, 8),
        ({"target_modules": ("o_proj", "gate_proj"), "lora_alpha": 5}, None),
    ],
    ids=["all", "q and v of the top", "v alone", "no attention"],
)
def test_peft_adds_the_same_to_qwens_own_modules(
    base: Path, tmp_path: Path, settings: dict[str, Any], fused: int | None
) -> None:
    model = tuned(base, **settings)
    model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    write_qwen_adapter(tmp_path / "adapter", str(base), tmp_path / "out")
    config = qwen_settings()
    own = PeftModel.from_pretrained(own_modules(config), tmp_path / "out")
    adapted = {
        name.removeprefix("base_model.model."): module
        for name, module in own.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(saved) == 2 * len(adapted)
    weights = qwen_weights(config)
    for name, module in adapted.items():
        weights[f"{name}.weight"] += module.get_delta_weight("default").detach().numpy()
        if name.endswith("c_attn"):
            assert module.r["default"] == fused
    assert any(name.endswith("c_attn") for name in adapted) == (fused is not None)
    with torch.no_grad():
        mine = model(torch.tensor([IDS])).logits[0].numpy()
        with model.disable_adapter():
            plain = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(mine - qwen_logits(weights, config, IDS)).max() < 1e-4
    assert np.abs(mine - plain).max() > 0.05
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(base)


def test_the_joint_rank_is_the_sum_and_zero_where_there_is_no_adapter() -> None:
    rng = np.random.default_rng(0)
    pairs = {
        module: {"A": torch.tensor(rng.normal(size=(rank, 6))),
                 "B": torch.tensor(rng.normal(size=(5, rank)))}
        for module, rank in (("self_attn.v_proj", 3), ("self_attn.q_proj", 2))
    }  # fmt: skip
    fused = qwen_adapters(pairs)["attn.c_attn"]
    assert (fused["A"].shape, fused["B"].shape) == ((5, 6), (15, 5))
    update = fused["B"] @ fused["A"]
    q, v = pairs["self_attn.q_proj"], pairs["self_attn.v_proj"]
    assert torch.allclose(update[:5], q["B"] @ q["A"], atol=1e-12)
    assert torch.equal(update[5:10], torch.zeros(5, 6, dtype=torch.float64))
    assert torch.allclose(update[10:], v["B"] @ v["A"], atol=1e-12)


def test_other_adapters_are_refused(base: Path, tiny_model: Path, tmp_path: Path) -> None:
    tuned(base).save_pretrained(tmp_path / "plain")
    file = tmp_path / "plain" / "adapter_config.json"
    settings = json.loads(file.read_text())
    for changed in ({"use_dora": True}, {"use_rslora": True}, {"bias": "all"}):
        file.write_text(json.dumps({**settings, **changed}))
        with pytest.raises(KilotuneError, match="only plain LoRA") as caught:
            write_qwen_adapter(tmp_path / "plain", str(base), tmp_path)
        assert "--to merged" in caught.value.fix
    llama = source_at(tiny_model).model(torch.float32)
    wide = attach_lora(llama, LoraSettings(learning_rate=1e-3), seed=0)
    wide.save_pretrained(tmp_path / "llama")
    tensors = tmp_path / "llama" / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes().replace(b"model.model.layers", b"model.model.blocks"))
    with pytest.raises(KilotuneError, match="blocks"):
        write_qwen_adapter(tmp_path / "llama", str(base), tmp_path)
