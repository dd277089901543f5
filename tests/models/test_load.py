from pathlib import Path

import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.models.builtin import builtin_folder, make_builtin
from kilotune.models.load import (
    compute_dtype,
    generation_stops,
    load_model,
    load_tokenizer,
    locate,
    locate_tokenizer,
    stop_ids,
    weight_dtype,
)
from kilotune.recipe.schema import LoraSettings, ModelSettings, TopLayersSettings
from tests.tiny import byte_tokenizer


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
