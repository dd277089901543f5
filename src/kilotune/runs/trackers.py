"""Mirrors of the record in trackers. The Trainer reports steps by itself; MLflow is told the rest.

The run folder stays the source of truth: nothing is ever read from a tracker.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune import distributed
from kilotune.recipe.difference import flat_settings
from kilotune.recipe.schema import Recipe
from kilotune.system.extras import extra

MLFLOW = "mlflow"
LONGEST = 500  # characters that MLflow takes of a parameter


@dataclass(frozen=True, slots=True)
class Parent:
    """A run of MLflow that is open in another process: its server, its experiment, its id."""

    server: str
    experiment: str
    run: str


@contextmanager
def tracked(
    report_to: Sequence[str], name: str, recipe: Recipe, parent: Parent | None = None
) -> Iterator[None]:
    """Inside the `with`, one run of MLflow is open, with the recipe as its parameters.

    What the Trainer reports goes to it too. Inside another one it is its child, and so it is of a
    `parent` elsewhere. Where and to which experiment is MLflow's own business:
    MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. Raises KilotuneError where it is not installed.
    """
    if not tells(report_to):
        yield
        return
    mlflow = _mlflow()
    inside = mlflow.active_run() is not None
    placed = {}
    if parent:
        mlflow.set_tracking_uri(parent.server)
        placed = {"experiment_id": parent.experiment, "parent_run_id": parent.run}
    elif not inside and (experiment := os.environ.get("MLFLOW_EXPERIMENT_NAME")):
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=name, nested=inside, **placed):
        settings = flat_settings(recipe)
        mlflow.log_params({f"recipe.{k}": str(v)[:LONGEST] for k, v in settings.items()})
        yield


def opened(report_to: Sequence[str]) -> Parent | None:
    """The run of MLflow that is open here, if any, for children in other processes."""
    if not tells(report_to):
        return None
    mlflow = _mlflow()
    info = mlflow.active_run().info
    return Parent(mlflow.get_tracking_uri(), info.experiment_id, info.run_id)


def note(
    report_to: Sequence[str], figures: Mapping[str, float | None], files: Iterable[Path] = ()
) -> None:
    """Add figures, and files as artifacts, to the run of MLflow that is open."""
    if not tells(report_to):
        return
    mlflow = _mlflow()
    known = {name: value for name, value in figures.items() if value is not None}
    mlflow.log_metrics({name: value for name, value in known.items() if math.isfinite(value)})
    for path in files:
        mlflow.log_artifact(str(path))


def tells(report_to: Sequence[str]) -> bool:
    """Whether MLflow is told, by this process."""
    return distributed.leads() and (MLFLOW in report_to or "all" in report_to)


def _mlflow() -> Any:
    fix = "pip install 'kilotune[trackers]', or leave it out of tune.report_to"
    return extra("mlflow", where="tune.report_to", fix=fix)
