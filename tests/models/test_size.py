"""Sizes from configurations alone, held against what was published and what is really built."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.lower import first_trained_layer
from kilotune.models.size import ModelSize, empty_model, model_size, trained_part
from kilotune.models.source import locate_config, source_at
from kilotune.models.tree import module_tree
from kilotune.recipe.schema import FullSettings, LoraSettings, ModelSettings, TopLayersSettings

CONFIGS = Path(__file__).parents[1] / "support" / "configs"


def empty(name: str | Path) -> Any:
    return empty_model(locate_config(ModelSettings(name=str(name))).config)


def size_of(name: str | Path) -> ModelSize:
    return model_size(empty(name))


def test_qwen_7b_has_the_published_parameters_without_its_own_code() -> None:
    size = size_of(CONFIGS / "qwen-7b.json")
    assert size.parameters == 7_721_324_544
    assert (size.layers, size.width, size.inner, size.vocabulary) == (32, 4096, 11008, 151936)
    assert size.embedding == size.head == 151936 * 4096
    # Fused q, k, v with a bias; output; the two gates and the way back; two norms.
    attention = 4096 * 3 * 4096 + 3 * 4096 + 4096 * 4096
    assert size.layer_parameters == attention + 3 * 4096 * 11008 + 2 * 4096


def test_qwen2_vl_7b_has_the_published_parameters_its_vision_tower_apart() -> None:
    size = size_of(CONFIGS / "qwen2-vl-7b.json")
    assert size.parameters == 8_291_375_616
    assert size.vision == 675_759_104
    assert (size.layers, size.width, size.keys) == (28, 3584, 512)
    rest = size.parameters - size.vision - size.embedding - size.head
    assert rest == 28 * size.layer_parameters + 3584  # the last norm


def test_an_empty_model_is_measured_as_the_real_one(tiny_model: Path) -> None:
    real = source_at(tiny_model).model(torch.float32)
    assert size_of(tiny_model) == model_size(real)
    assert size_of(tiny_model).head == 0  # it is the embedding


SETTINGS = [
    LoraSettings(learning_rate=1e-3),
    LoraSettings(learning_rate=1e-3, rank=3, target_modules=("q_proj", "v_proj"), layers="top:2"),
    TopLayersSettings(method="top_layers", learning_rate=1e-3, layers="top:1"),
    FullSettings(method="full", learning_rate=1e-3),
    LoraSettings(method="dora", learning_rate=1e-3, frozen=("*.layers.0.*",)),
    LoraSettings(learning_rate=1e-3, trainable=("model.norm.weight",)),
]


NAMES = ["all", "q and v of two", "top layer", "full", "dora of some", "and the norm"]


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_the_trained_part_is_counted_as_it_will_be_attached(
    tiny_model: Path, settings: Any
) -> None:
    part = trained_part(empty(tiny_model), settings)
    real = source_at(tiny_model).model(torch.float32)
    tunable = Tunable(real, settings, seed=0)
    assert part.parameters == tunable.parameter_counts()[0]
    assert part.tree == module_tree(tunable.model)
    assert part.lowest == first_trained_layer(tunable.model)


def test_layers_and_targets_that_are_not_there_are_refused(tiny_model: Path) -> None:
    with pytest.raises(KilotuneError, match="3 layers"):
        trained_part(empty(tiny_model), LoraSettings(learning_rate=1e-3, layers="top:4"))
    settings = LoraSettings(learning_rate=1e-3, target_modules=("c_attn",))
    with pytest.raises(KilotuneError, match="no linear layer called c_attn"):
        trained_part(empty(tiny_model), settings)
    with pytest.raises(KilotuneError, match="no parameter is called 'head'"):
        trained_part(empty(tiny_model), LoraSettings(learning_rate=1e-3, frozen=("head",)))


def test_a_configuration_without_a_tokenizer_is_known_as_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text((CONFIGS / "qwen-7b.json").read_text())
    assert not locate_config(ModelSettings(name=str(tmp_path))).has_tokenizer
    assert locate_config(ModelSettings(name=str(tiny_model))).has_tokenizer
    assert size_of(tmp_path) == size_of(CONFIGS / "qwen-7b.json")


@pytest.mark.parametrize("content", [None, "{", '{"model_type": "no-such"}', "{}"])
def test_what_is_no_configuration_is_said(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(KilotuneError, match=r"config\.json|not valid JSON"):
        locate_config(ModelSettings(name=str(tmp_path)))
