"""The whole job in two gloo processes: one run folder, and the results of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.test_pipeline import RECORDS
from tests.tiny import labelled_csv

ROOT = Path(__file__).parents[1]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
FSDP2 = ["-m", "accelerate.commands.launch", "--config_file", "tests/configs/fsdp2.yaml"]
WAYS = {
    "one": ["-m", "kilotune"],
    "data-parallel": [*TORCHRUN, "-m", "kilotune"],
    "sharded": [*FSDP2, "-m", "tests.sharding"],
}


pytestmark = pytest.mark.slow  # each way is two processes that load torch


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """The run folder of each way; what was printed lies beside it."""
    folder = tmp_path_factory.mktemp("ways")
    data = labelled_csv(folder / "films.csv", 80)
    settings = ["model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=2"]
    arguments = ["run", str(data), "--model", str(tiny_model), "--set", "judge.bootstrap_samples=9"]
    for setting in settings:
        arguments += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KILOTUNE_CACHE": str(folder / "cache")}
    for way, start in WAYS.items():
        command = [sys.executable, *start, *arguments, "--json", "--out", str(folder / way)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / f"{way}.json").write_text(done.stdout)
    return {way: folder / way for way in WAYS}


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("way", ["data-parallel", "sharded"])
def test_two_processes_write_one_run_with_the_results_of_one(
    outputs: dict[str, Path], way: str
) -> None:
    one, two = outputs["one"], outputs[way]
    assert {path.name for path in two.iterdir()} == RECORDS
    assert bool(list(two.rglob("*.distcp"))) == (way == "sharded")  # each process saved its part
    for key in ("loss", "eval_loss"):
        found, expected = ([line[key] for line in lines(run) if key in line] for run in (two, one))
        assert len(found) == len(expected) > 1
        assert found == pytest.approx(expected, rel=1e-5)
    # As the run of one process has it, hashes of the frozen tensors before and after included.
    for name in ("freeze_proof.json", "predictions.parquet", "data.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    adapters = [load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, expected_tensor in adapters[0].items():
        assert adapters[1][name] == pytest.approx(expected_tensor, abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_one_process_speaks(outputs: dict[str, Path], way: str) -> None:
    document = json.loads(outputs[way].with_name(f"{way}.json").read_text())
    assert document["run"] == str(outputs[way])
