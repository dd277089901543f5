"""A training of a published model that is only planned."""

from pathlib import Path
from typing import Any

from kilotune.models.size import empty_model, model_size, trained_part
from kilotune.models.source import locate_config
from kilotune.planning.job import Job
from kilotune.planning.speed import Speed
from kilotune.planning.workload import Work
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import LoraSettings, ModelSettings, Recipe

CONFIGS = Path(__file__).parent / "configs"
WORK = Work(
    train=320, validation=80, test=100, length=200, longest=220, shared=150, answer=3, counted=True
)
SPEED = Speed(1e11, 1e10)


def planned_job(name: str, work: Work = WORK, **settings: Any) -> Job:
    tune = LoraSettings(learning_rate=1e-3, **settings)
    config = locate_config(ModelSettings(name=str(CONFIGS / f"{name}.json"))).config
    size = model_size(empty_model(config))
    return Job(size, trained_part(empty_model(config), tune), work, tune)


def recipe_of(data: Path, model: Path, *overrides: str) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=overrides)
