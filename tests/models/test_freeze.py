from pathlib import Path

import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.proof import Gradients
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings, Method, TopLayersSettings

LORA = LoraSettings(learning_rate=1e-3)
DORA = LoraSettings(method="dora", learning_rate=1e-3)
MIXED = LoraSettings(learning_rate=1e-3, layers="top:1", trainable=("*.layers.2.*norm.weight",))
TOP = TopLayersSettings(method="top_layers", learning_rate=1e-3, layers="top:1")
METHODS = pytest.mark.parametrize(
    "settings", [LORA, DORA, TOP, MIXED], ids=["lora", "dora", "top_layers", "lora and norms"]
)
IDS = torch.arange(10)[None]


def tunable(folder: Path, settings: Method) -> Tunable:
    return Tunable(source_at(folder).model(torch.float32), settings, seed=0)


def logits(model) -> torch.Tensor:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return model(IDS).logits


def move(part: Tunable) -> None:
    with torch.no_grad():
        for _, parameter in part.trained():
            parameter.add_(0.05)


@METHODS
def test_the_base_is_the_model_as_it_came_and_tuning_comes_back(
    tiny_model: Path, settings: Method
) -> None:
    plain = logits(source_at(tiny_model).model(torch.float32))
    part = tunable(tiny_model, settings)
    move(part)
    tuned = logits(part.model)
    with part.as_base() as base:
        assert torch.equal(logits(base), plain)
    assert torch.equal(logits(part.model), tuned)
    assert not torch.allclose(tuned, plain)


@METHODS
def test_what_moved_and_what_did_not(tiny_model: Path, settings: Method) -> None:
    part = tunable(tiny_model, settings)
    before = part.prove()
    assert before.moved == ()
    move(part)
    after = part.prove()
    assert (after.unmoved, after.changed) == ((), [])
    assert set(after.moved) == {name for name, _ in part.trained()}
    assert set(after.frozen).isdisjoint(after.moved)
    everything = {n for n, _ in part.model.named_parameters()}
    assert everything <= set(after.frozen) | set(after.moved)


@METHODS
def test_a_frozen_tensor_that_changed_is_named(tiny_model: Path, settings: Method) -> None:
    part = tunable(tiny_model, settings)
    name, tensor = next((n, t) for n, t in part.frozen() if "layers.0" in n)
    with torch.no_grad():
        tensor.view(-1)[0] += 1e-3
    with pytest.raises(KilotuneError) as caught:
        part.prove()
    assert name in str(caught.value)


def test_top_layers_trains_whole_layers_and_nothing_else(tiny_model: Path) -> None:
    names = [name for name, _ in tunable(tiny_model, TOP).trained()]
    assert len(names) == 9
    assert all(name.startswith("model.layers.2.") for name in names)


def test_what_was_frozen_of_an_adapter_stays_frozen_after_the_base_was_asked(
    tiny_model: Path,
) -> None:
    settings = LoraSettings(learning_rate=1e-3, frozen=("*.lora_A.weight",))
    part = tunable(tiny_model, settings)
    names = {name for name, _ in part.trained()}
    assert len(names) == 3 * 7
    assert all(".lora_B." in name for name in names)
    with part.as_base():
        pass
    assert {n for n, p in part.model.named_parameters() if p.requires_grad} == names
    assert len(list(part.to_save())) == 2 * 3 * 7


def reached(part: Tunable, *, step: int = 1, steps: int = 5, without: str = "-") -> Gradients:
    return Gradients({n: step for n, _ in part.trained() if without not in n}, steps)


def test_a_trained_tensor_without_a_gradient_is_named(tiny_model: Path) -> None:
    part = tunable(tiny_model, LORA)
    move(part)
    proof = part.prove(reached(part), best_step=5)
    assert set(proof.first_gradient.values()) == {1}
    missed = "layers.1.mlp.up_proj.lora_B"
    with pytest.raises(KilotuneError, match=r"no gradient reached in 5 steps") as caught:
        part.prove(reached(part, without=missed), best_step=5)
    assert f"{missed}.default.weight" in str(caught.value)
    assert "layers.0" not in str(caught.value)


def test_loras_a_is_excused_for_the_one_step_at_which_its_b_is_zero(tiny_model: Path) -> None:
    part = tunable(tiny_model, LORA)
    move(part)
    part.prove(reached(part, steps=1, without="lora_A"), best_step=1)
    part.prove(Gradients({}, 0), best_step=1)
    with pytest.raises(KilotuneError, match=r"no gradient reached in 2 steps.*lora_A"):
        part.prove(reached(part, steps=2, without="lora_A"), best_step=2)


def test_a_trained_tensor_that_did_not_move_is_named_unless_the_best_weights_are_older(
    tiny_model: Path,
) -> None:
    part = tunable(tiny_model, TOP)
    move(part)
    name, tensor = next(part.trained())
    with torch.no_grad():
        tensor.copy_(part._start[name])
    assert part.prove(reached(part, step=3), best_step=2).unmoved == (name,)
    with pytest.raises(KilotuneError, match="as they were, though they had gradients") as caught:
        part.prove(reached(part, step=3), best_step=3)
    assert name in str(caught.value)
    assert "layers.2.mlp" not in str(caught.value)
