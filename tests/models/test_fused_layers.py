from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from kilotune.models.freeze import Tunable
from kilotune.models.fused_layers import fused_layers
from kilotune.models.pretrained import Model
from kilotune.models.row_kernels import kernels_for
from kilotune.recipe.schema import LoraSettings, TopLayersSettings
from tests.models.test_fused_lora import IDS, error, loss_and_gradient
from tests.support.families import FAMILIES, SOFT_CAPPED, perturb, tiny

pytestmark = pytest.mark.skipif(
    kernels_for(torch.zeros(1)) is None, reason="there is no compiler whose threads are torch's"
)


def fused(model: Model) -> list[str]:
    return sorted(type(m.forward).__name__ for m in model.modules() if "forward" in vars(m))


# Of 4 layers: two norms and a gated unit each, and the last norm; Qwen3 norms queries and keys.
# Gemma's norms and activation are others.
COUNTS = {"llama": (9, 4), "qwen2": (9, 4), "qwen3": (17, 4), "mistral": (9, 4), "gemma": (0, 0)}


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_layers_give_the_loss_and_gradient_of_plain_ones(family: str) -> None:
    tunable = tiny(FAMILIES[family])
    loss, gradient = loss_and_gradient(tunable)
    norms, units = COUNTS[family]
    with fused_layers(tunable.model):
        assert fused(tunable.model) == ["_FusedGated"] * units + ["_FusedNorm"] * norms
        ours, slopes = loss_and_gradient(tunable)
    assert error(ours, loss) < 1e-5
    assert 0 < error(slopes, gradient) < 1e-5
    assert fused(tunable.model) == []
    assert torch.equal(loss_and_gradient(tunable)[1], gradient)


def test_rotary_positions_are_fused_and_given_back() -> None:
    plain = modeling_llama.apply_rotary_pos_emb
    with fused_layers(tiny(FAMILIES["llama"]).model):
        assert modeling_llama.apply_rotary_pos_emb is not plain
    assert modeling_llama.apply_rotary_pos_emb is plain


def test_bfloat16_is_as_close_to_float32_as_plain_layers_are() -> None:
    exact = loss_and_gradient(tiny(FAMILIES["llama"]))[1]
    half = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=torch.bfloat16)
    half.load_state_dict(tiny(FAMILIES["llama"]).model.unload().state_dict())
    narrow = Tunable(half, LoraSettings(learning_rate=1e-3), seed=0)
    perturb(narrow)
    _, plain = loss_and_gradient(narrow)
    with fused_layers(narrow.model):
        assert fused(narrow.model)
        _, ours = loss_and_gradient(narrow)
    assert 0 < error(ours, exact) < 1.1 * error(plain, exact) < 0.1


def test_norms_that_are_trained_have_their_gradient() -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=torch.float32)
    tunable = Tunable(model, TopLayersSettings(method="top_layers", learning_rate=1e-3), seed=0)
    expected = loss_and_gradient(tunable)[1]
    trained = sum("norm" in name for name, _ in tunable.trained())
    assert trained > 0
    with fused_layers(tunable.model):
        assert fused(tunable.model).count("_FusedNorm") == 9 - trained
        assert error(loss_and_gradient(tunable)[1], expected) < 1e-5


def test_a_norm_of_another_formula_under_the_same_names_is_left_alone() -> None:
    class Shifted(modeling_llama.LlamaRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1e-3

    model = tiny(FAMILIES["llama"]).model
    for module in model.modules():
        if isinstance(module, modeling_llama.LlamaRMSNorm):
            module.__class__ = Shifted
    with fused_layers(model):
        assert "_FusedNorm" not in fused(model)


def test_under_autocast_layers_do_as_before() -> None:
    tunable = tiny(FAMILIES["llama"])

    def logits() -> Any:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            return tunable.model(IDS).logits

    expected = logits()
    with fused_layers(tunable.model):
        assert torch.equal(logits(), expected)


def test_models_of_other_kinds_are_left_as_they_are() -> None:
    tunable = tiny(SOFT_CAPPED)
    expected = loss_and_gradient(tunable)[1]
    with fused_layers(tunable.model):
        assert error(loss_and_gradient(tunable)[1], expected) < 1e-5
