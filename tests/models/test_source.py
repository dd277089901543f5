import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from kilotune.errors import KilotuneError
from kilotune.models.builtin import builtin_folder, make_builtin
from kilotune.models.size import check_answers, check_trained
from kilotune.models.source import locate, locate_tokenizer, source_at
from kilotune.models.streaming import streamed_below
from kilotune.models.vision import load_vision
from kilotune.recipe.schema import DecodingSettings, LoraSettings, ModelSettings
from kilotune.session.templates import limits_at
from tests.support.first_qwen import write_tiny_qwen
from tests.support.tiny import byte_tokenizer
from tests.support.tiny_vision import KINDS, write_kind


def test_a_folder_is_found_and_a_wrong_name_is_one_clear_error(tiny_model: Path) -> None:
    assert locate(ModelSettings(name=str(tiny_model))).place == str(tiny_model.resolve())
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


def test_the_configuration_is_read_once_whoever_asks(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, plain = [], AutoConfig.from_pretrained

    def counted(place: str, **how: object) -> object:
        read.append(place)
        return plain(place, **how)

    monkeypatch.setattr(AutoConfig, "from_pretrained", counted)
    source = locate(ModelSettings(name=str(tiny_model)))
    kept = source.config.to_dict()
    assert not source.sees_images
    assert streamed_below(source, LoraSettings(learning_rate=1e-3), torch.float32, 10**9) == 0
    check_answers(source, DecodingSettings(max_new_tokens=1))
    check_trained(source, LoraSettings(learning_rate=1e-3, layers="top:1"))
    assert (limits_at(source), load_vision(source, needed=True)) == (limits_at(source), None)
    assert read == [str(tiny_model)]
    assert source.config.to_dict() == kept


def test_a_configuration_file_stands_for_the_folder_it_is_in(tiny_model: Path) -> None:
    whole = locate(ModelSettings(name=str(tiny_model)))
    file = locate(ModelSettings(name=str(tiny_model / "config.json")))
    assert (file.place, vars(file.config)) == (whole.place, vars(whole.config))
    assert file.tokenizer().get_vocab() == whole.tokenizer().get_vocab()


def test_what_a_first_generation_qwen_cannot_do_is_said_before_it_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = write_tiny_qwen(tmp_path, index=False)
    nf4 = ModelSettings(name=str(folder), quantization="nf4")
    with pytest.raises(KilotuneError, match="is not quantised"):
        locate(nf4).check_quantisable(LoraSettings(learning_rate=1e-3))
    assert (locate(nf4).renamed, locate(nf4).streamable) == (True, True)
    assert len(locate(nf4).weight_files()) == len(list(folder.glob("*.safetensors"))) > 1
    plain = source_at(tiny_model)
    assert (plain.renamed, plain.streamable) == (False, True)


def test_a_tokenizer_needs_no_weights_and_pads_with_its_end(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    settings = ModelSettings(name=str(tmp_path))
    assert locate_tokenizer(settings).place == str(tmp_path.resolve())
    loaded = locate_tokenizer(settings).tokenizer()
    assert loaded.pad_token == "<|im_end|>"
    assert source_at(tmp_path).stop_ids() == ()


def test_no_tokenizer_and_one_without_an_end_are_clear_errors(tmp_path: Path) -> None:
    missing = ModelSettings(name="nobody/nothing")
    with pytest.raises(KilotuneError, match="no tokenizer there"):
        locate_tokenizer(missing).tokenizer()
    endless = byte_tokenizer()
    endless.pad_token = endless.eos_token = None
    endless.save_pretrained(tmp_path)
    with pytest.raises(KilotuneError, match="neither a padding nor an end token"):
        source_at(tmp_path).tokenizer()


def test_the_generation_settings_say_where_a_model_stops(tiny_model: Path, tmp_path: Path) -> None:
    assert source_at(tiny_model).stop_ids() == (258,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    assert source_at(tmp_path).stop_ids() == (3, 5)


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
    source_at(folder).check_weights()
    one, other = (source_at(f).model(torch.float32) for f in (folder, tiny_model))
    assert torch.equal(one(torch.arange(9)[None]).logits, other(torch.arange(9)[None]).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_that_sees_is_taken_and_one_without_a_tensor_is_not(
    kind: str, tmp_path: Path
) -> None:
    folder = write_kind(kind, tmp_path)
    source_at(folder).check_weights()
    held = load_file(folder / "model.safetensors")
    name = next(n for n in held if ("visual" in n or "vision" in n) and n.endswith("weight"))
    save_file({n: t for n, t in held.items() if n != name}, folder / "model.safetensors")
    with pytest.raises(KilotuneError, match="the weights lack"):
        source_at(folder).check_weights()
    with pytest.raises(KilotuneError, match="the weights lack"):
        source_at(folder).model(torch.float32)


def test_a_first_generation_qwen_of_other_shapes_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_qwen(tmp_path)
    source_at(folder).check_weights()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    for use in (
        lambda: source_at(folder).check_weights(),
        lambda: source_at(folder).model(torch.float32),
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
            source_at(folder).stop_ids()
        assert caught.value.where == str(file)
    file.unlink()
    assert source_at(folder).stop_ids() == ()


def test_a_run_takes_the_weights_folder_for_its_configuration_and_no_other_file(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    found = locate(ModelSettings(name=str(folder / "config.json")))
    assert (found.place, found.config_file) == (str(folder), None)
    shutil.copy(folder / "config.json", folder / "longer.json")
    with pytest.raises(KilotuneError, match="a run needs weights"):
        locate(ModelSettings(name=str(folder / "longer.json")))
