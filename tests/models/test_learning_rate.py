"""The learning rate that follows from the way of tuning and the model's width."""

from pathlib import Path

import pytest

from kilotune.models.learning_rate import learning_rate, with_learning_rate
from kilotune.models.source import locate
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import (
    BitFitSettings,
    FullSettings,
    LoraSettings,
    Recipe,
    TopLayersSettings,
)

LORA = LoraSettings(learning_rate="auto")


def test_lora_has_what_was_measured_at_smollm2s_width_and_less_the_wider_a_model() -> None:
    assert learning_rate(LORA, 576, "classify") == learning_rate(LORA, 576, "extract") == 2e-3
    assert learning_rate(LORA, 4096, "classify") == pytest.approx(4.3e-4)
    assert learning_rate(LORA, 32, "classify") == 2e-3
    rates = [learning_rate(LORA, width, "classify") for width in (576, 896, 1536, 2048, 3584, 8192)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("task", ["generate", "chat"])
def test_what_writes_freely_keeps_more_of_what_it_could_do(task: str) -> None:
    rates = [learning_rate(LORA, width, task) for width in (576, 2048, 8192)]
    assert rates == [5e-4, 5e-4, learning_rate(LORA, 8192, "classify")]


@pytest.mark.parametrize(
    "settings",
    [
        FullSettings(method="full", learning_rate="auto"),
        TopLayersSettings(method="top_layers", learning_rate="auto"),
    ],
)
def test_weights_that_are_trained_themselves_want_far_less(
    settings: FullSettings | TopLayersSettings,
) -> None:
    biases = BitFitSettings(method="bitfit", learning_rate="auto")
    found = [learning_rate(one, 576, "classify") for one in (settings, biases, LORA)]
    assert found[0] == 5e-5
    assert found == sorted(found)


def of_the_preset(model: Path, *overrides: str) -> Recipe:
    settings = {"data": {"train": "films.csv"}, "model": {"name": str(model)}}
    return load_recipe(preset="auto", settings=settings, overrides=overrides)


def test_the_recipe_of_a_run_has_a_number(tiny_model: Path) -> None:
    recipe = of_the_preset(tiny_model)
    with pytest.raises(ValueError, match="not settled yet"):
        _ = recipe.tune.rate
    source = locate(recipe.model)
    width = source.config.hidden_size
    rate = learning_rate(LORA, width, "auto")
    assert with_learning_rate(recipe, source).tune.rate == rate
    given = of_the_preset(tiny_model, "tune.learning_rate=3e-4")
    assert with_learning_rate(given, source) is given
