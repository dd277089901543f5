"""Finished runs of tiny random models, made once for all tests of their exports."""

from pathlib import Path

import pytest

import kilotune
from kilotune.recipe.load import load_recipe
from tests.support.first_qwen import write_tiny_qwen
from tests.support.tiny import labelled_csv


def tuned(folder: Path, model: Path) -> Path:
    """The folder of a finished run of a few steps."""
    data = labelled_csv(folder / "films.csv", 120)
    settings = {"data": {"train": str(data)}, "model": {"name": str(model), "precision": "float32"}}
    overrides = [
        "tune.epochs=8",
        "tune.learning_rate=1e-2",
        "tune.stopping.metric=loss",
        "tune.stopping.patience=8",
        "judge.bootstrap_samples=200",
    ]
    recipe = load_recipe(settings=settings, overrides=overrides)
    return kilotune.run(recipe, folder / "Tiny Films").folder


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first-generation Qwen."""
    return write_tiny_qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def qwen_run(qwen_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a first-generation Qwen."""
    return tuned(tmp_path_factory.mktemp("qwen"), qwen_base)


@pytest.fixture(scope="session")
def llama_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a Llama."""
    return tuned(tmp_path_factory.mktemp("llama"), tiny_model)
