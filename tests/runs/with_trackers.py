"""MLflow and TensorBoard for real. `make test-long` runs this in an environment that has them."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import kilotune
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows import ablate as experiment
from tests.support.records import written
from tests.support.tiny import labelled_csv


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    always = ["model.precision=float32", "tune.epochs=1", "judge.bootstrap_samples=100"]
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=[*always, *overrides])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A local server on SQLite."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1",
            "--artifacts-destination", str(tmp_path / "artifacts"),
        ],
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait_for(f"{address}/health", process)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "films")
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def _wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError("the server did not answer in five minutes")


def test_an_ablation_is_a_parent_in_mlflow_with_trials_and_the_final_run_as_children(
    server: str, tiny_model: Path, tmp_path: Path
) -> None:
    chosen = recipe(
        labelled_csv(tmp_path / "films.csv"), tiny_model, "tune.report_to=[mlflow]",
        "ablation.folds=2", "ablation.factors={tune.rank: [2]}",
    )  # fmt: skip
    found = experiment.ablate(chosen, tmp_path / "ranks")
    client = MlflowClient(server)
    runs = client.search_runs([client.get_experiment_by_name("films").experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.info.run_name == "ranks"
    assert sorted(run.info.run_name for run in children) == [
        "final",
        *(f"fold {fold}, seed {seed}" for fold in (0, 1) for seed in (0, 1, 2) for _ in "ab"),
    ]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == [
        "ablation.json", "best.yaml",
    ]  # fmt: skip
    ranks = [run.data.params["recipe.tune.rank"] for run in children]
    assert sorted(ranks) == ["2"] * 6 + ["8"] * 7
    for run in children:
        assert float(run.data.params["recipe.tune.epochs"]) == 1
        steps = client.get_metric_history(run.info.run_id, "loss")
        assert [metric.step for metric in steps] == list(range(1, len(steps) + 1))
        assert len(steps) == (4 if run.info.run_name == "final" else 2)
    (final,) = (run for run in children if run.info.run_name == "final")
    assert [file.path for file in client.list_artifacts(final.info.run_id)] == [
        "recipe.yaml", "report.html", "verdict.json",
    ]  # fmt: skip
    judged = written(found.final, "judgement.json")["test"]
    tuned = next(system for system in judged if system["name"] == "tuned")
    accuracy = tuned["figures"]["accuracy"]["value"]
    if accuracy is not None:  # of fewer than ten examples there is none
        assert final.data.metrics["test.tuned.accuracy"] == accuracy
    logged = [run.data.metrics["held_out.score"] for run in children if run is not final]
    assert len(logged) == 12


def test_tensorboard_shows_the_log(tiny_model: Path, tmp_path: Path) -> None:
    chosen = recipe(
        labelled_csv(tmp_path / "films.csv"), tiny_model, "tune.report_to=[tensorboard]"
    )
    run = kilotune.run(chosen, tmp_path / "run")
    (events,) = run.folder.rglob("events.out.tfevents.*")
    shown = EventAccumulator(str(events)).Reload()
    log = RunFolder(run.folder).read_metrics()
    losses = [line["loss"] for line in log if "loss" in line]
    assert [s.value for s in shown.Scalars("train/loss")] == pytest.approx(losses)
    (measured,) = (line["eval_macro_f1"] for line in log if "eval_macro_f1" in line)
    assert [s.value for s in shown.Scalars("eval/macro_f1")] == [pytest.approx(measured)]
