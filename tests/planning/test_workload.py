"""The tokens of a run's examples."""

from pathlib import Path

import pytest

from kilotune.models.source import locate_config
from kilotune.planning.workload import Work, measure_work
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.schema import Recipe
from tests.support.planned import CONFIGS, recipe_of


def measured(recipe: Recipe) -> Work:
    return measure_work(prepare(recipe, Silent()), locate_config(recipe.model))


def test_lengths_are_counted_with_the_models_tokenizer(labelled: Path, tiny_model: Path) -> None:
    work = measured(recipe_of(labelled, tiny_model))
    assert work.counted
    assert work.train + work.validation + work.test == 40
    # The byte tokenizer makes a token of every byte: "good" or "bad", and the end.
    assert work.answer == pytest.approx(4.5, abs=0.1)
    assert work.shared > 80
    assert work.shared < work.length < work.longest


def test_without_a_tokenizer_lengths_are_estimated_and_said(labelled: Path) -> None:
    work = measured(recipe_of(labelled, CONFIGS / "qwen-7b.json"))
    assert not work.counted
    assert 20 < work.shared < work.length < 60
