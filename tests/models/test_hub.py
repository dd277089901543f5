import json
from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.models.hub import missing_files
from kilotune.models.source import locate, source_at
from kilotune.recipe.schema import ModelSettings


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of `someone/model`, at one revision, empty."""
    for module in ("constants", "file_download"):
        target = f"huggingface_hub.{module}.constants.HF_HUB_CACHE"
        target = target.replace("constants.constants", "constants")
        monkeypatch.setattr(target, str(tmp_path))
    folder = tmp_path / "models--someone--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    return folder / "snapshots" / "abc"


def test_offline_a_hub_id_says_which_files_are_missing_and_how_to_get_them(cached: Path) -> None:
    with pytest.raises(KilotuneError, match=r"no config\.json, model\.safetensors \(or") as caught:
        locate(ModelSettings(name="someone/model"))
    assert "HF_HUB_OFFLINE is set" in caught.value.what
    assert "hf download someone/model --local-dir FOLDER" in caught.value.fix
    (cached / "config.json").write_text("{}")
    assert missing_files("someone/model") == [
        "model.safetensors (or model.safetensors.index.json and its parts)"
    ]


def test_parts_of_the_weights_that_are_not_in_the_cache_are_named(cached: Path) -> None:
    (cached / "config.json").write_text("{}")
    parts = {f"w{i}": f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    index = {"weight_map": parts}
    (cached / "model.safetensors.index.json").write_text(json.dumps(index))
    (cached / parts["w2"]).write_bytes(b"")
    with pytest.raises(KilotuneError) as caught:
        source_at("someone/model").check_weights()
    assert caught.value.what == f"there is no {parts['w1']}, no {parts['w3']}"
    assert "hf download someone/model" in caught.value.fix


def test_a_name_that_can_be_no_hub_id_is_said_to_be_none() -> None:
    with pytest.raises(KilotuneError, match=r"not a built-in model.*and not a hub id"):
        locate(ModelSettings(name="models/some/deep/folder"))


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match=r"no config\.json in this folder"):
        locate(ModelSettings(name=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(KilotuneError, match=r"there is no model\.safetensors") as caught:
        locate(ModelSettings(name=str(tmp_path))).check_weights()
    assert caught.value.fix == "Give a whole folder, as save_pretrained writes it"
