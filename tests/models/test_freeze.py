from pathlib import Path

import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.load import load_model
from kilotune.recipe.schema import LoraSettings, ModelSettings, TopLayersSettings

LORA = LoraSettings(learning_rate=1e-3)
TOP = TopLayersSettings(method="top_layers", learning_rate=1e-3, layers="top:1")
METHODS = pytest.mark.parametrize("settings", [LORA, TOP], ids=["lora", "top_layers"])
IDS = torch.arange(10)[None]


def tunable(folder: Path, settings: LoraSettings | TopLayersSettings) -> Tunable:
    return Tunable(load_model(str(folder), ModelSettings(), torch.float32), settings, seed=0)


def logits(model) -> torch.Tensor:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return model(IDS).logits


def move(part: Tunable) -> None:
    with torch.no_grad():
        for _, parameter in part.trained():
            parameter.add_(0.05)


@METHODS
def test_the_base_is_the_model_as_it_came_and_tuning_comes_back(
    tiny_model: Path, settings: LoraSettings | TopLayersSettings
) -> None:
    plain = logits(load_model(str(tiny_model), ModelSettings(), torch.float32))
    part = tunable(tiny_model, settings)
    move(part)
    tuned = logits(part.model)
    with part.as_base() as base:
        assert torch.equal(logits(base), plain)
    assert torch.equal(logits(part.model), tuned)
    assert not torch.allclose(tuned, plain)


@METHODS
def test_what_moved_and_what_did_not(
    tiny_model: Path, settings: LoraSettings | TopLayersSettings
) -> None:
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
def test_a_frozen_tensor_that_changed_is_named(
    tiny_model: Path, settings: LoraSettings | TopLayersSettings
) -> None:
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
