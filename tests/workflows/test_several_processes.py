"""The whole job in two gloo processes: one run folder, and the results of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import kilotune
from kilotune.recipe.load import load_recipe
from tests.support.records import written
from tests.support.tiny import labelled_csv
from tests.workflows.test_run import RECORDS

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
FSDP2 = ["-m", "accelerate.commands.launch", "--config_file", "tests/support/configs/fsdp2.yaml"]
WAYS = {
    "one": ["-m", "kilotune"],
    "data-parallel": [*TORCHRUN, "-m", "kilotune"],
    "sharded": [*FSDP2, "-m", "tests.support.sharding"],
}


slow = pytest.mark.slow  # each way is two processes that load torch


def run_each_way(folder: Path, model: Path, *settings: str) -> dict[str, Path]:
    """The run folder of each way; what was printed lies beside it."""
    data = labelled_csv(folder / "films.csv", 80)
    usual = (
        "model.precision=float32", "tune.learning_rate=1e-2", "judge.bootstrap_samples=9",
        "tune.refit=never",
    )  # fmt: skip
    arguments = ["run", str(data), "--model", str(model)]
    for setting in (*usual, *settings):
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


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    return run_each_way(tmp_path_factory.mktemp("ways"), tiny_model, "tune.epochs=2")


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@slow
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


@slow
@pytest.mark.parametrize("way", WAYS)
def test_one_process_speaks(outputs: dict[str, Path], way: str) -> None:
    document = json.loads(outputs[way].with_name(f"{way}.json").read_text())
    assert document["run"] == str(outputs[way])


@pytest.mark.long
def test_what_was_forgotten_and_how_to_decode_are_found_as_by_one_process(
    tmp_path: Path, tiny_model: Path
) -> None:
    # Of a random model every answer is empty, and nothing can be forgotten.
    settings = {
        "data": {"train": str(labelled_csv(tmp_path / "before.csv", 80))},
        "model": {"name": str(tiny_model), "precision": "float32"},
        "judge": {"bootstrap_samples": 9, "forgetting": "never"},
        "tune": {"method": "full", "learning_rate": 3e-3, "epochs": 6},
    }
    speaking = kilotune.run(load_recipe(settings=settings), tmp_path / "before").weights
    runs = run_each_way(
        tmp_path, speaking, "tune.epochs=1", "decoding.search=true", "data.validation_fraction=0.25"
    )
    records = {
        way: (
            written(run, "judgement.json")["forgetting"],
            written(run, "decoding.json"),
        )
        for way, run in runs.items()
    }
    (one, chosen), *others = records.values()
    assert one["prompts"] > 50
    for forgotten, decoding in others:
        assert forgotten["kept"]["value"] == pytest.approx(one["kept"]["value"], abs=1e-6)
        assert forgotten["perplexity"] == pytest.approx(one["perplexity"], rel=1e-5)
        assert forgotten["health"] == one["health"]
        assert decoding == chosen
    assert chosen["answers"] > 500
