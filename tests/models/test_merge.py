"""Merged checkpoints compute what the model with its adapters does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, Qwen2ForCausalLM

from kilotune.errors import KilotuneError
from kilotune.models.merge import write_merged
from tests.models.test_qwen_adapter import tuned
from tests.support.families import FAMILIES
from tests.support.first_qwen import write_tiny_qwen
from tests.support.random_models import random_model

IDS = torch.tensor([[4, 9, 33, 2, 60, 61, 17]])


@pytest.mark.parametrize("shard", [2_000_000_000, 40_000], ids=["one file", "shards"])
def test_a_merged_first_generation_qwen_is_a_qwen_2_with_equal_logits(
    tmp_path: Path, shard: int
) -> None:
    model = tuned(write_tiny_qwen(tmp_path / "base"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_merged(model, tmp_path, shard)
    files = list(tmp_path.glob("*.safetensors"))
    assert (len(files) > 4) == (shard == 40_000)
    assert max(file.stat().st_size for file in files) < max(shard, 480 * 32 * 4) + 4000
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(merged) is Qwen2ForCausalLM
    assert merged.config.architectures == ["Qwen2ForCausalLM"]
    with torch.no_grad():
        assert (merged(IDS).logits - model(IDS).logits).abs().max() < 1e-4
        with model.disable_adapter():
            assert (merged(IDS).logits - model(IDS).logits).abs().max() > 0.05
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def gpt2() -> Any:
    """Its linear layers hold their weights the other way round."""
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("family", [*FAMILIES, "gpt2"])
def test_other_families_merge_too(tmp_path: Path, family: str, dora: bool) -> None:
    config = LoraConfig(
        target_modules=["c_attn", "c_proj"] if family == "gpt2" else "all-linear",
        init_lora_weights=False, use_dora=dora, task_type="CAUSAL_LM",
    )  # fmt: skip
    base = gpt2() if family == "gpt2" else random_model(family)
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(torch.linspace(0.5, 1.5, len(parameter)))
    write_merged(model, tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert (merged(IDS).logits - model(IDS).logits).abs().max() < 1e-4
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_bfloat16_stays_and_other_adapters_are_refused(tmp_path: Path) -> None:
    base = random_model("qwen2").to(torch.bfloat16)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    write_merged(get_peft_model(base, config), tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    other = LoraConfig(target_modules=["q_proj"], lora_bias=True)
    with pytest.raises(KilotuneError, match=r"no plain LoRA or DoRA.*q_proj"):
        write_merged(get_peft_model(random_model("qwen2"), other), tmp_path / "other")
