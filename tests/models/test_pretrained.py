import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertModel

from kilotune.errors import KilotuneError
from kilotune.models.builtin import builtin_folder, make_builtin
from kilotune.models.pretrained import (
    check_weights,
    compute_dtype,
    generation_stops,
    load_beside,
    load_model,
    load_tokenizer,
    locate,
    locate_tokenizer,
    stop_ids,
    weight_dtype,
)
from kilotune.recipe.schema import LoraSettings, ModelSettings, TopLayersSettings
from tests.support.first_qwen import write_tiny_qwen
from tests.support.tiny import byte_tokenizer
from tests.support.tiny_vision import KINDS, write_kind


def test_a_folder_is_found_and_a_wrong_name_is_one_clear_error(tiny_model: Path) -> None:
    assert locate(ModelSettings(name=str(tiny_model))) == str(tiny_model.resolve())
    with pytest.raises(KilotuneError, match="not a built-in model") as caught:
        locate(ModelSettings(name="nobody/nothing"))
    assert "smollm2" in caught.value.fix


def test_offline_the_missing_builtin_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILOTUNE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(KilotuneError, match="HF_HUB_OFFLINE") as caught:
        builtin_folder("smollm2")
    assert "kilotune fetch smollm2" in caught.value.fix
    with pytest.raises(KilotuneError, match="no built-in model"):
        make_builtin("gpt5")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_needs_no_weights_and_pads_with_its_end(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    settings = ModelSettings(name=str(tmp_path))
    assert locate_tokenizer(settings) == str(tmp_path.resolve())
    loaded = load_tokenizer(locate_tokenizer(settings), settings)
    assert loaded.pad_token == "<|im_end|>"
    assert generation_stops(str(tmp_path)) == ()


def test_no_tokenizer_and_one_without_an_end_are_clear_errors(tmp_path: Path) -> None:
    missing = ModelSettings(name="nobody/nothing")
    with pytest.raises(KilotuneError, match="no tokenizer there"):
        load_tokenizer(locate_tokenizer(missing), missing)
    endless = byte_tokenizer()
    endless.pad_token = endless.eos_token = None
    endless.save_pretrained(tmp_path)
    with pytest.raises(KilotuneError, match="neither a padding nor an end token"):
        load_tokenizer(str(tmp_path), ModelSettings())


def test_the_generation_settings_say_where_a_model_stops(tiny_model: Path, tmp_path: Path) -> None:
    assert generation_stops(str(tiny_model)) == (258,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    assert generation_stops(str(tmp_path)) == (3, 5)


def test_trained_weights_are_float32_and_frozen_ones_may_be_bfloat16() -> None:
    lora = LoraSettings(learning_rate=1e-3)
    top = TopLayersSettings(method="top_layers", learning_rate=1e-5)
    assert weight_dtype(lora, torch.bfloat16) == torch.bfloat16
    assert weight_dtype(top, torch.bfloat16) == torch.float32
    assert compute_dtype("float32") == torch.float32


def test_generation_stops_at_the_templates_token_and_the_models(tiny_model: Path) -> None:
    model = load_model(str(tiny_model), ModelSettings(), torch.float32)
    own = model.generation_config.eos_token_id
    assert stop_ids(model, 7) == [7, own]
    assert stop_ids(model, own) == [own]


def with_tables(folder: Path) -> None:
    """As old checkpoints hold them: what every program computes for itself."""
    held = load_file(folder / "model.safetensors")
    held |= {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(3)}
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_generation(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


@pytest.mark.parametrize("change", [lambda folder: None, with_tables, as_bin, without_generation])
def test_a_whole_model_is_taken_in_every_form(
    change: Callable[[Path], None], tiny_model: Path, tmp_path: Path
) -> None:
    assert "lm_head.weight" not in load_file(tiny_model / "model.safetensors")  # it is tied
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    change(folder)
    check_weights(str(folder), ModelSettings())
    one, other = (load_model(str(f), ModelSettings(), torch.float32) for f in (folder, tiny_model))
    assert torch.equal(one(torch.arange(9)[None]).logits, other(torch.arange(9)[None]).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_that_sees_is_taken_and_one_without_a_tensor_is_not(
    kind: str, tmp_path: Path
) -> None:
    folder = write_kind(kind, tmp_path)
    check_weights(str(folder), ModelSettings())
    held = load_file(folder / "model.safetensors")
    name = next(n for n in held if ("visual" in n or "vision" in n) and n.endswith("weight"))
    save_file({n: t for n, t in held.items() if n != name}, folder / "model.safetensors")
    with pytest.raises(KilotuneError, match="the weights lack"):
        check_weights(str(folder), ModelSettings())
    with pytest.raises(KilotuneError, match="the weights lack"):
        load_model(str(folder), ModelSettings(), torch.float32)


def test_a_first_generation_qwen_of_other_shapes_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_qwen(tmp_path)
    check_weights(str(folder), ModelSettings())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    for use in (
        lambda: check_weights(str(folder), ModelSettings()),
        lambda: load_model(str(folder), ModelSettings(), torch.float32),
    ):
        with pytest.raises(KilotuneError, match=r"mlp.*is 32×48, not 32×32"):
            use()


def test_a_broken_generation_config_is_named_and_a_missing_one_is_none(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "generation_config.json"
    for broken in ("{", "[]", '"x"', '{"eos_token_id": [1.5]}'):
        file.write_text(broken)
        with pytest.raises(KilotuneError, match="generation_config") as caught:
            generation_stops(str(folder))
        assert caught.value.where == str(file)
    file.unlink()
    assert generation_stops(str(folder)) == ()


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
