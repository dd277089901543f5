"""Ray for real, two nodes on this machine; `make test-long` runs this where it is installed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from kilotune.ablation.ray_cluster import ClusterAddress, RayWorkers
from kilotune.ablation.runner import Came, Lost
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.trials import Wanted
from kilotune.workflows import ablate as experiment
from tests.support.records import written
from tests.support.tiny import labelled_csv

SETTINGS = [
    "model.precision=float32", "tune.learning_rate=1e-5", "tune.epochs=4", "tune.layers=top:1",
    "decoding.max_new_tokens=6", "judge.bootstrap_samples=100", "judge.forgetting=never",
    "ablation.folds=2", "ablation.seeds=[0,1,2]",
    "ablation.factors={tune.learning_rate: [1.0e-4, 2.0e-2]}",
]  # fmt: skip

# Two clusters and five ablations one after the other, however busy the machine.
pytestmark = pytest.mark.timeout(1800)


def recipe(data: Path, model: Path) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=SETTINGS)


def document(folder: Path) -> dict[str, Any]:
    """What `ablation.json` holds, but for the time that things took."""
    found: dict[str, Any] = written(folder, "ablation.json")
    for rung in found["rungs"]:
        for tried in rung["tried"]:
            tried["cost"].pop("seconds")
    return found


class Lines(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_csv(tmp_path_factory.mktemp("films") / "films.csv", 60)


@pytest.fixture(scope="module")
def alone(
    films: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> experiment.Experiment:
    """The ablation in this process, without Ray."""
    return experiment.ablate(recipe(films, tiny_model), tmp_path_factory.mktemp("alone") / "whole")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head and a second node, of one CPU each; their workers keep their states apart."""
    monkeypatch.setenv("KILOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_a_node_killed_during_an_ablation_changes_nothing_that_is_found(
    cluster: Cluster,
    alone: experiment.Experiment,
    films: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (second,) = cluster.worker_nodes
    begin, wait, together, killed = RayWorkers.begin, RayWorkers.wait, 0, False

    def when_both_are_ready(self: RayWorkers, wanted: Sequence[Wanted]) -> int:
        return begin(self, wanted) if together or len(self._idle) == 2 else 0

    def watching(self: RayWorkers) -> list[Came | Lost]:
        nonlocal together, killed
        nodes = [worker.node for worker, trial in self._waiting.values() if trial]
        together = max(together, len(nodes))
        if not killed and len(set(nodes)) == 2:
            cluster.remove_node(second, allow_graceful=False)
            killed = True
        return wait(self)

    monkeypatch.setattr(RayWorkers, "begin", when_both_are_ready)
    monkeypatch.setattr(RayWorkers, "wait", watching)
    lines = Lines()
    found = experiment.ablate(
        recipe(films, tiny_model), tmp_path / "ray", lines, ClusterAddress(cluster.address)
    )
    assert (killed, together) == (True, 2)
    assert found.lost == 1
    (said,) = (line for line in lines.said if "its worker is lost" in line)
    assert f"({socket.gethostname()}: " in said
    assert "Ray: room for 2 at once, each with 1 CPU" in lines.said
    assert found.trials == alone.trials > 8
    table = document(found.folder)
    assert table == document(alone.folder)
    assert max(tried["gain"]["value"] for tried in table["rungs"][0]["tried"]) > 0.1
    assert found.changes == alone.changes
    tests = [written(e.final, "judgement.json")["test"] for e in (found, alone)]
    assert tests[0] == tests[1]
    assert not ray.is_initialized()


def test_what_goes_wrong_on_a_node_is_said_here(
    cluster: Cluster, films: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(films, tiny_model)
    with pytest.raises(KilotuneError, match="no node of the cluster has 3 CPU"):
        experiment.ablate(chosen, tmp_path / "large", place=ClusterAddress(cluster.address, cpus=3))
    monkeypatch.setattr("kilotune.runs.record.code_digest", lambda: "another")
    with pytest.raises(KilotuneError, match="other code of kilotune than this machine"):
        experiment.ablate(chosen, tmp_path / "other", place=ClusterAddress(cluster.address))
    monkeypatch.undo()
    # What has begun goes on, also without Ray.
    with pytest.raises(KilotuneError, match="the budget of 7 trials is spent"):
        experiment.resume(tmp_path / "other", trials=7)
    assert len(list((tmp_path / "other" / "trials").iterdir())) == 7


def test_a_cluster_that_is_not_there_leaves_nothing_behind(
    films: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="no Ray cluster could be joined"):
        experiment.ablate(
            recipe(films, tiny_model), tmp_path / "new", place=ClusterAddress("127.0.0.1:1")
        )
    assert not (tmp_path / "new").exists()


def test_ctrl_c_keeps_what_is_done_and_another_command_goes_on(
    alone: experiment.Experiment, films: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    settings = [part for one in SETTINGS for part in ("--set", one)]
    command = [
        sys.executable, "-m", "kilotune", "ablate", str(films), "--model", str(tiny_model),
        *settings, "--out", str(folder), "--ray", "local", "--ray-cpus", "1",
    ]  # fmt: skip
    environment = {
        **os.environ, "KILOTUNE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        # What is begun in the background ignores it, and hands that on.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stderr=subprocess.PIPE,
        text=True,
    )
    trials = folder / "trials"
    while not trials.exists() or len(list(trials.glob("*.json"))) < 3:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    # As a terminal does: to every process of the group, Ray's too.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"go on with: kilotune ablate {folder}" in said
    kept = {path.name: path.stat().st_mtime_ns for path in trials.iterdir()}
    assert 3 <= len(kept) < alone.trials
    again = subprocess.run(
        [sys.executable, "-m", "kilotune", "ablate", str(folder), "--ray", "local", "--json"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer = json.loads(again.stdout)
    assert (answer["trials"], answer["lost"]) == (alone.trials, 0)
    assert kept.items() <= {p.name: p.stat().st_mtime_ns for p in trials.iterdir()}.items()
    assert document(folder) == document(alone.folder)
