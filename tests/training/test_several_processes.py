import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def launched(
    processes: int, model: Path, folder: Path, *overrides: str, stop_at: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """A tuning in one or several gloo processes, interrupted after the step `stop_at`."""
    code = ["-m", "tests.training.several", str(model), str(folder), *overrides]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes > 1 else []), *code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STOP_AT": str(stop_at)}
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=300)


def losses(processes: int, model: Path, folder: Path, *overrides: str) -> tuple[str, int, list]:
    """How it batched, and its training and validation losses."""
    assert launched(processes, model, folder, *overrides).returncode == 0
    return tuple(json.loads((folder / "losses.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "steps", "settings"),
    [
        ("packed", 2, ["tune.batch_size=8"]),
        pytest.param(
            "padded", 3, ["tune.batch_size=4", "tune.lora_dropout=1e-12"], marks=pytest.mark.long
        ),
    ],
)
def test_two_processes_give_the_losses_of_one(
    tiny_model: Path, tmp_path: Path, how: str, steps: int, settings: list[str]
) -> None:
    """11 examples: one process has fewer of the last step's, or accumulates over less."""
    always = ["tune.epochs=3", "tune.learning_rate=1e-3", *settings]
    one = losses(1, tiny_model, tmp_path / "one", *always)
    two = losses(2, tiny_model, tmp_path / "two", *always, "tune.micro_batch_size=2")
    assert one[0] == two[0] == how
    assert two[1] == 2 < one[1]
    assert len(one[2]) == 3 * steps + 3
    assert two[2] == pytest.approx(one[2], rel=1e-5)


@pytest.mark.long
def test_a_run_stopped_within_an_epoch_goes_on_with_that_epochs_batches(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings = ["tune.batch_size=4", "tune.epochs=3", "tune.micro_batch_size=2"]
    whole = losses(2, tiny_model, tmp_path / "whole", *settings)[2]
    stopped = launched(2, tiny_model, tmp_path / "parts", *settings, stop_at=4)
    assert stopped.returncode != 0
    rest = losses(2, tiny_model, tmp_path / "parts", *settings)[2]
    # Three steps and a validation in each epoch.
    assert rest == whole[len(whole) - len(rest) :]
    assert len(rest) == len(whole) - 5
