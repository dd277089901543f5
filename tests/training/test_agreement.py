from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MambaConfig, MistralConfig

from kilotune.models.attention import Pack
from kilotune.models.freeze import Tunable
from kilotune.recipe.schema import BitFitSettings, LoraSettings, Method, TopLayersSettings
from kilotune.training.agreement import agree
from kilotune.training.packing import PackLayout, sight
from kilotune.training.tuning_result import Difference
from tests.support.families import FAMILIES, SHORT_WINDOW, SIZES, SOFT_CAPPED, tiny
from tests.training.test_packing import PAD, conversations

LONGEST = max(len(rendering.token_ids) for rendering in conversations())


def fresh(model: torch.nn.Module, **settings: Any) -> Tunable:
    return Tunable(model.eval(), LoraSettings(learning_rate=1e-3, **settings), 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_paths_are_packed_and_the_model_is_left_to_the_bit(dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=dtype)
    tunable = fresh(model)
    before = {name: tensor.clone() for name, tensor in tunable.model.state_dict().items()}
    agreement = agree(tunable, conversations(), PAD, LONGEST)
    assert agreement.packed
    assert agreement.precision == "float32"
    assert agreement.loss_error is not None
    assert agreement.gradient_error is not None
    assert 0 < agreement.gradient_error < 1e-5
    after = tunable.model.state_dict()
    assert all(after[name].dtype == tensor.dtype for name, tensor in before.items())
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert tunable.prove().moved == ()
    assert tunable.model.config._attn_implementation == "sdpa"


def test_trained_layers_agree_too() -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["qwen2"], dtype=torch.float32)
    tunable = Tunable(model, TopLayersSettings(method="top_layers", learning_rate=1e-3), 0)
    assert agree(tunable, conversations(), PAD, LONGEST).packed


@pytest.mark.parametrize(
    "settings",
    [
        LoraSettings(method="dora", learning_rate=1e-3),
        BitFitSettings(method="bitfit", learning_rate=1e-3),
        LoraSettings(learning_rate=1e-3, trainable=("*norm.weight", "*.bias")),
    ],
    ids=["dora", "bitfit", "lora with norms and biases"],
)
def test_other_methods_agree_too(settings: Method) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["qwen2"], dtype=torch.float32)
    agreement = agree(Tunable(model, settings, 0), conversations(), PAD, LONGEST)
    assert agreement.packed
    assert agreement.gradient_error is not None
    assert agreement.gradient_error < 1e-5


def test_a_wrong_fast_path_is_seen_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(layout: PackLayout, longest: int) -> Pack:
        return replace(sight(layout, longest), reaches=())

    monkeypatch.setattr("kilotune.training.packing.sight", blind)
    agreement = agree(tiny(FAMILIES["llama"]), conversations(), PAD, LONGEST)
    assert agreement.path == "padded"
    assert agreement.reason.startswith("packed differs from padded by more than 0.0001: loss ")
    assert agreement.gradient_error is not None
    assert agreement.gradient_error > 1e-2


def test_what_packs_cannot_express_is_padded_with_the_reason() -> None:
    window = agree(tiny(SHORT_WINDOW), conversations(), PAD, LONGEST)
    assert window.path == "padded"
    assert "attention window of 8 is shorter than an example" in window.reason
    capped = agree(tiny(SOFT_CAPPED), conversations(), PAD, LONGEST)
    assert capped.path == "padded"
    config = LlamaConfig(**SIZES, attention_dropout=0.1)
    assert "attention dropout of 0.1" in agree(tiny(config), conversations(), PAD, LONGEST).reason
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"])
    assert (
        "dropout of 0.05"
        in agree(fresh(model, lora_dropout=0.05), conversations(), PAD, LONGEST).reason
    )


def test_a_window_that_only_a_later_example_overflows_is_found_before_training() -> None:
    model = tiny(MistralConfig(**SIZES, sliding_window=LONGEST))
    assert agree(model, conversations(), PAD, LONGEST).packed
    later = agree(model, conversations(), PAD, LONGEST + 1)
    assert later.path == "padded"
    assert f"window of {LONGEST} is shorter than an example of {LONGEST + 1}" in later.reason


def test_recurrent_models_are_padded() -> None:
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    settings = LoraSettings(learning_rate=1e-3, target_modules=("in_proj",))
    agreement = agree(Tunable(model, settings, 0), conversations(), PAD, LONGEST)
    assert agreement.path == "padded"
    assert agreement.loss_error is None or agreement.loss_error > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_too_little_memory_for_float32_is_tried_without_it_and_then_called_by_its_name(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunable = fresh(AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=dtype))
    seen: list[torch.dtype] = []

    def full(tunable: Tunable, *_: object) -> Difference:
        seen.append(tunable.model.dtype)
        if len(seen) != 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return Difference(0.0, 0.0)

    monkeypatch.setattr("kilotune.training.agreement.compare", full)
    assert agree(tunable, conversations(), PAD, LONGEST).packed
    assert seen == [torch.float32, dtype]
    found = agree(tunable, conversations(), PAD, LONGEST)
    assert (found.packed, "not enough memory" in found.reason) == (False, True)
    assert tunable.model.dtype == dtype
