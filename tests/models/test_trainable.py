from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.models.lower import first_trained_layer
from kilotune.models.source import source_at
from kilotune.models.trainable import plain_name, select_trained
from kilotune.recipe.schema import (
    BitFitSettings,
    FullSettings,
    LoraSettings,
    Method,
    TopLayersSettings,
)
from tests.support.random_models import random_model


def trained(model: Any, settings: Method) -> list[str]:
    chosen = select_trained(model, settings, seed=0)
    return [plain_name(name) for name, p in chosen.named_parameters() if p.requires_grad]


def tiny(folder: Path) -> Any:
    return source_at(folder).model(torch.float32)


def test_dora_trains_magnitudes_beside_the_two_factors(tiny_model: Path) -> None:
    settings = LoraSettings(method="dora", learning_rate=1e-3, target_modules=("q_proj",))
    names = trained(tiny(tiny_model), settings)
    module = "model.layers.0.self_attn.q_proj"
    assert len(names) == 3 * 3
    assert {n.removeprefix(module) for n in names if n.startswith(module)} == {
        ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector.weight"
    }  # fmt: skip


def test_bitfit_trains_every_bias_and_nothing_else() -> None:
    names = trained(random_model("qwen2"), BitFitSettings(method="bitfit", learning_rate=1e-3))
    assert len(names) == 4 * 3
    assert all(name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")) for name in names)
    top = BitFitSettings(method="bitfit", learning_rate=1e-3, layers="top:1")
    assert trained(random_model("qwen2"), top) == [n for n in names if ".layers.3." in n]


def test_a_model_without_biases_says_what_to_do_instead(tiny_model: Path) -> None:
    with pytest.raises(KilotuneError, match="no biases to train") as caught:
        trained(tiny(tiny_model), BitFitSettings(method="bitfit", learning_rate=1e-3))
    assert "tune.method=lora" in caught.value.fix


def test_patterns_add_to_a_method_and_frozen_ones_win(tiny_model: Path) -> None:
    settings = LoraSettings(
        learning_rate=1e-3,
        layers="top:1",
        target_modules=("q_proj",),
        trainable=("*.layers.[12].*norm.weight",),
        frozen=("*.layers.1.input_layernorm.*",),
    )
    assert trained(tiny(tiny_model), settings) == [
        "model.layers.1.post_attention_layernorm.weight",
        "model.layers.2.self_attn.q_proj.lora_A.weight",
        "model.layers.2.self_attn.q_proj.lora_B.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.2.post_attention_layernorm.weight",
    ]
    assert not settings.adapters_alone


def test_a_tied_head_goes_by_both_of_its_names(tiny_model: Path) -> None:
    settings = FullSettings(method="full", learning_rate=1e-3, frozen=("lm_head.*",))
    assert "model.embed_tokens.weight" not in trained(tiny(tiny_model), settings)


def test_the_head_alone_can_be_trained_and_everything_below_stays_cached() -> None:
    settings = TopLayersSettings(
        method="top_layers", learning_rate=1e-3, layers=(), trainable=("lm_head.weight",)
    )
    model = random_model("qwen3")
    assert trained(model, settings) == ["lm_head.weight"]
    assert first_trained_layer(model) == 3
    model = random_model("qwen3")
    both = settings.model_copy(update={"layers": "top:2"})
    assert len(trained(model, both)) == 2 * 11 + 1
    assert first_trained_layer(model) == 2
    model = random_model("qwen2")  # its head is its embeddings
    assert trained(model, settings) == ["model.embed_tokens.weight"]
    assert first_trained_layer(model) == 0


@pytest.mark.parametrize(
    ("settings", "where", "near"),
    [
        ({"trainable": ("model.layers.*.self_attn.q_prj.weight",)}, "tune.trainable",
         "model.layers.*.self_attn.q_proj.weight"),
        ({"frozen": ("layers.0",)}, "tune.frozen", "model.layers.*"),
    ],
)  # fmt: skip
def test_a_pattern_that_matches_nothing_is_named_with_names_that_are_near(
    settings: dict[str, Any], where: str, near: str, tiny_model: Path
) -> None:
    with pytest.raises(KilotuneError, match="no parameter is called") as caught:
        trained(tiny(tiny_model), LoraSettings(learning_rate=1e-3, **settings))
    (pattern,) = next(iter(settings.values()))
    assert pattern in caught.value.what
    assert caught.value.where == where
    assert near in caught.value.fix


def test_freezing_everything_is_refused(tiny_model: Path) -> None:
    with pytest.raises(KilotuneError, match="nothing is left to train"):
        trained(tiny(tiny_model), LoraSettings(learning_rate=1e-3, frozen=("*",)))
