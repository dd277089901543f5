from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from kilotune.errors import KilotuneError
from kilotune.models.pretrained import compute_dtype, load_beside, stop_ids, weight_dtype
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings, TopLayersSettings
from tests.support.tiny import byte_tokenizer


def test_trained_weights_are_float32_and_frozen_ones_may_be_bfloat16() -> None:
    lora = LoraSettings(learning_rate=1e-3)
    top = TopLayersSettings(method="top_layers", learning_rate=1e-5)
    assert weight_dtype(lora, torch.bfloat16) == torch.bfloat16
    assert weight_dtype(top, torch.bfloat16) == torch.float32
    assert compute_dtype("float32") == torch.float32


def test_generation_stops_at_the_templates_token_and_the_models(tiny_model: Path) -> None:
    model = source_at(tiny_model).model(torch.float32)
    own = model.generation_config.eos_token_id
    assert stop_ids(model, 7) == [7, own]
    assert stop_ids(model, own) == [own]


def test_a_model_beside_the_tuned_one_may_lack_its_pooler_and_nothing_else(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=300, intermediate_size=32, **sizes))
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    held = {name: tensor for name, tensor in held.items() if "pooler" not in name}
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    load_beside(AutoModel, str(tmp_path), "sentence encoder")
    held.pop("encoder.layer.0.output.dense.weight")
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(KilotuneError, match=r"lack encoder\.layer\.0\.output\.dense\.weight"):
        load_beside(AutoModel, str(tmp_path), "sentence encoder")
