from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from kilotune.models import answering as module
from kilotune.models.answering import answering
from kilotune.models.freeze import Tunable
from kilotune.models.fused_lora import fused_lora
from kilotune.models.pretrained import Model
from kilotune.recipe.schema import LoraSettings
from tests.support.families import FAMILIES, perturb, tiny

IDS = torch.arange(40).view(2, 20)


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits
    return found


def error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).float().norm() / expected.float().norm())


def replaced(model: Model) -> list[str]:
    return [name for name, one in model.named_modules() if "forward" in vars(one)]


def halved(**settings: Any) -> Tunable:
    """A model in bfloat16 under float32 adapters."""
    half = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=torch.bfloat16)
    half.load_state_dict(tiny(FAMILIES["llama"]).model.unload().state_dict())
    tunable = Tunable(half.eval(), LoraSettings(learning_rate=1e-3, **settings), seed=0)
    perturb(tunable)
    return tunable


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_pefts_and_the_base_models(family: str) -> None:
    tunable = tiny(FAMILIES[family])
    tuned = logits(tunable.model)
    with tunable.as_base() as base:
        plain = logits(base)
    with answering(tunable.model):
        assert error(logits(tunable.model), tuned) < 1e-6
        with tunable.as_base() as base:
            assert torch.equal(logits(base), plain)
    assert error(plain, tuned) > 0.01
    assert replaced(tunable.model) == []
    assert torch.equal(logits(tunable.model), tuned)


def test_in_bfloat16_answers_are_as_close_to_exact_as_pefts() -> None:
    exact, tunable = logits(tiny(FAMILIES["llama"]).model), halved()
    peft = error(logits(tunable.model), exact)
    with answering(tunable.model):
        for _ in range(module.OFTEN + 1):  # the last time by weights that are laid out
            assert error(logits(tunable.model), exact) < 1.5 * peft < 0.1


def test_a_weight_is_laid_out_once_it_was_asked_often_and_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tunable = halved()
    layer = tunable.model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    if not module._layable(layer):
        pytest.skip("torch cannot lay out weights here")
    for free, expected in ((10**9, [False] * 3 + [True] * 2), (0, [False] * 5)):
        monkeypatch.setattr(module, "free_memory", lambda free=free: free)
        with answering(tunable.model):
            seen = []
            for _ in expected:
                logits(tunable.model)
                seen.append(layer.forward.weight is not None)
        assert seen == expected


def test_weights_that_have_moved_between_are_seen() -> None:
    tunable = tiny(FAMILIES["llama"])
    with answering(tunable.model):
        before = logits(tunable.model)
    perturb(tunable, 0.2)
    expected = logits(tunable.model)
    with answering(tunable.model):
        assert error(logits(tunable.model), expected) < 1e-6
    assert error(before, expected) > 0.01


def test_where_gradients_are_wanted_and_among_fused_layers_nothing_changes() -> None:
    tunable = tiny(FAMILIES["llama"])
    with fused_lora(tunable.model):
        before = {name: vars(one)["forward"] for name, one in _modules(tunable.model)}
        with answering(tunable.model):
            loss = tunable.model(IDS, labels=IDS).loss
        assert {name: vars(one)["forward"] for name, one in _modules(tunable.model)} == before
    assert loss.requires_grad
    assert torch.equal(loss, tunable.model(IDS, labels=IDS).loss)


def _modules(model: Model) -> list[tuple[str, Any]]:
    return [(name, one) for name, one in model.named_modules() if "forward" in vars(one)]


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.1}, {"method": "dora"}], ids=str)
def test_dropout_and_dora_are_left_to_peft(settings: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_config(FAMILIES["llama"], dtype=torch.float32)
    tunable = Tunable(model.eval(), LoraSettings(learning_rate=1e-3, **settings), seed=0)
    with answering(tunable.model):
        assert replaced(tunable.model) == []
