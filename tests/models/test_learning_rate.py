"""The learning rate that follows from the way of tuning, the kind of model and its width."""

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
from tests.support.tiny_vision import write_kind

LORA = LoraSettings(learning_rate="auto")


@pytest.mark.parametrize("task", ["classify", "extract"])
def test_a_llama_has_what_was_measured_at_smollm2s_width_and_less_the_wider_it_is(
    task: str,
) -> None:
    assert learning_rate(LORA, "llama", 576, task) == 2e-3
    assert learning_rate(LORA, "llama", 32, task) == 2e-3
    assert learning_rate(LORA, "llama", 4096, task) == pytest.approx(4.3e-4)
    rates = [learning_rate(LORA, "llama", width, task) for width in (576, 896, 2048, 3584, 8192)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("task", ["generate", "chat"])
def test_what_writes_freely_keeps_more_of_what_it_could_do(task: str) -> None:
    rates = [learning_rate(LORA, "llama", width, task) for width in (576, 2048, 8192)]
    assert rates == [5e-4, 5e-4, learning_rate(LORA, "llama", 8192, "classify")]


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma", "gpt2"])
def test_other_kinds_of_which_nothing_was_measured_have_the_usual_rate(kind: str) -> None:
    for width in (64, 896, 4096):
        assert learning_rate(LORA, kind, width, "classify") == 5e-4


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
    found = [learning_rate(one, "llama", 576, "classify") for one in (settings, biases, LORA)]
    assert found[0] == 5e-5
    assert found == sorted(found)


def of_the_preset(model: Path, *overrides: str) -> Recipe:
    settings = {"data": {"train": "films.csv"}, "model": {"name": str(model)}}
    return load_recipe(preset="auto", settings=settings, overrides=overrides)


def test_the_recipe_of_a_run_has_a_number(tiny_model: Path, tmp_path: Path) -> None:
    recipe = of_the_preset(tiny_model)
    with pytest.raises(ValueError, match="not settled yet"):
        _ = recipe.tune.rate
    assert with_learning_rate(recipe, locate(recipe.model)).tune.rate == 2e-3
    given = of_the_preset(tiny_model, "tune.learning_rate=3e-4")
    assert with_learning_rate(given, locate(given.model)) is given
    sees = of_the_preset(write_kind("qwen2_vl", tmp_path / "sees"))  # its language model counts
    assert with_learning_rate(sees, locate(sees.model)).tune.rate == 5e-4
