from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3_5TextConfig

from kilotune.errors import KilotuneError
from kilotune.models.lora import attach_lora, layer_indices, linear_names
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tiny(folder: Path, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    return source_at(folder).model(dtype)


def trained(model) -> list[str]:  # type: ignore[no-untyped-def]
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_all_linear_layers_of_a_block_are_found(tiny_model: Path) -> None:
    assert linear_names(tiny(tiny_model)) == ALL


def test_the_linear_layers_of_every_kind_of_block_are_found() -> None:
    config = Qwen3_5TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, linear_num_value_heads=4,
        linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = linear_names(model)
    assert len(set(config.layer_types)) == 2
    assert {"q_proj", "in_proj_qkv", "out_proj", "down_proj"} <= set(found)
    adapted = trained(attach_lora(model, LoraSettings(learning_rate=1e-3), 0))
    assert any("layers.0.linear_attn.in_proj_qkv.lora_A" in name for name in adapted)
    assert any("layers.3.self_attn.q_proj.lora_A" in name for name in adapted)


def test_adapters_are_float32_beside_bfloat16_weights_and_nothing_else_trains(
    tiny_model: Path,
) -> None:
    settings = LoraSettings(learning_rate=1e-3, rank=4)
    model = attach_lora(tiny(tiny_model, torch.bfloat16), settings, seed=0)
    assert len(trained(model)) == 3 * 7 * 2
    assert all("lora_" in name for name in trained(model))
    dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_top_layers_and_named_modules_alone(tiny_model: Path) -> None:
    settings = LoraSettings(learning_rate=1e-3, layers="top:1", target_modules=("q_proj",))
    names = trained(attach_lora(tiny(tiny_model), settings, seed=0))
    assert len(names) == 2
    assert all(".layers.2.self_attn.q_proj." in name for name in names)


def test_the_same_seed_gives_the_same_adapters_and_leaves_the_global_one(tiny_model: Path) -> None:
    settings = LoraSettings(learning_rate=1e-3)
    torch.manual_seed(7)
    first = attach_lora(tiny(tiny_model), settings, seed=1)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
    second = attach_lora(tiny(tiny_model), settings, seed=1)
    other = attach_lora(tiny(tiny_model), settings, seed=2)
    name = next(n for n in trained(first) if "lora_A" in n)
    parameter = [dict(m.named_parameters())[name] for m in (first, second, other)]
    assert torch.equal(parameter[0], parameter[1])
    assert not torch.equal(parameter[0], parameter[2])


def test_an_unknown_target_lists_those_there_are(tiny_model: Path) -> None:
    settings = LoraSettings(learning_rate=1e-3, target_modules=("c_attn",))
    with pytest.raises(KilotuneError, match="no linear layer called c_attn") as caught:
        attach_lora(tiny(tiny_model), settings, seed=0)
    assert "q_proj" in caught.value.fix


def test_layer_numbers() -> None:
    assert layer_indices("all", 3) == [0, 1, 2]
    assert layer_indices("top:2", 3) == [1, 2]
    assert layer_indices((0, 2), 3) == [0, 2]
    with pytest.raises(KilotuneError, match="the model has 3 layers"):
        layer_indices("top:4", 3)
    with pytest.raises(KilotuneError, match="the model has 3 layers"):
        layer_indices((3,), 3)
