from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kilotune.models.freeze import Tunable
from kilotune.models.fused_lora import fused_linears, fused_lora
from kilotune.models.pretrained import Model
from kilotune.recipe.schema import LoraSettings
from tests.support.families import FAMILIES, perturb, tiny

IDS = torch.arange(40).view(2, 20)


def loss_and_gradient(tunable: Tunable) -> tuple[torch.Tensor, torch.Tensor]:
    loss = tunable.model(IDS, labels=IDS).loss
    slopes = torch.autograd.grad(loss, [parameter for _, parameter in tunable.trained()])
    return loss.detach(), torch.cat([slope.flatten() for slope in slopes])


def error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


@pytest.mark.parametrize("layers", ["all", "top:2"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_adapters_give_pefts_loss_and_gradient(family: str, layers: str) -> None:
    tunable = tiny(FAMILIES[family], layers)
    loss, gradient = loss_and_gradient(tunable)
    with fused_lora(tunable.model):
        fused, slopes = loss_and_gradient(tunable)
    assert error(fused, loss) < 1e-5
    assert error(slopes, gradient) < 1e-5
    assert torch.equal(loss_and_gradient(tunable)[1], gradient)


def test_layers_of_one_input_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tunable = tiny(FAMILIES["llama"])
    sizes = []

    def counted(taken: torch.Tensor, layers: Any) -> Any:
        sizes.append(len(layers))
        return fused_linears(taken, layers)

    monkeypatch.setattr("kilotune.models.fused_lora.fused_linears", counted)
    with fused_lora(tunable.model):
        tunable.model(IDS)
    # Query, key and value; output; gate and up; down.
    assert sizes == [3, 1, 2, 1] * 4


def test_a_layer_given_another_input_computes_its_own() -> None:
    tunable = tiny(FAMILIES["llama"])
    layer = tunable.model.base_model.model.model.layers[0].self_attn
    one, other = torch.randn(2, 1, 5, 32, generator=torch.Generator().manual_seed(0))
    expected = layer.v_proj(other)
    with fused_lora(tunable.model):
        layer.q_proj(one)
        assert torch.allclose(layer.v_proj(other), expected, atol=1e-6)


def test_the_base_model_is_still_there() -> None:
    tunable = tiny(FAMILIES["llama"])
    with torch.no_grad():
        with tunable.as_base() as base:
            expected = base(IDS).logits
        with fused_lora(tunable.model):
            tuned = tunable.model(IDS).logits
            with tunable.as_base() as base:
                assert torch.equal(base(IDS).logits, expected)
    assert not torch.allclose(tuned, expected)


def test_bfloat16_weights_keep_float32_gradients_close_to_exact() -> None:
    tunable = tiny(FAMILIES["llama"])
    _, exact = loss_and_gradient(tunable)
    half = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=torch.bfloat16)
    half.load_state_dict(tiny(FAMILIES["llama"]).model.unload().state_dict())
    narrow = Tunable(half, LoraSettings(learning_rate=1e-3), seed=0)
    perturb(narrow)
    _, peft = loss_and_gradient(narrow)
    with fused_lora(narrow.model):
        _, fused = loss_and_gradient(narrow)
    assert fused.dtype == torch.float32
    assert error(fused, exact) < 1.5 * error(peft, exact) < 0.1


def fused(model: Model) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.1}, {"method": "dora"}], ids=str)
def test_dropout_and_dora_are_left_to_peft(settings: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"])
    tunable = Tunable(model, LoraSettings(learning_rate=1e-3, **settings), seed=0)
    with fused_lora(tunable.model):
        assert fused(tunable.model) == []


def test_a_bias_that_is_trained_has_its_gradient() -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["qwen2"], dtype=torch.float32)
    settings = LoraSettings(learning_rate=1e-3, trainable=("*.layers.1.*q_proj.bias",))
    tunable = Tunable(model, settings, seed=0)
    perturb(tunable)
    expected = loss_and_gradient(tunable)[1]
    with fused_lora(tunable.model):
        assert len(fused(tunable.model)) == 4 * 7 - 1
        assert error(loss_and_gradient(tunable)[1], expected) < 1e-5
