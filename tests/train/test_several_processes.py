import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def losses(processes: int, model: Path, folder: Path, *overrides: str) -> tuple[str, int, list]:
    """Training and validation losses of a run in one or several gloo processes."""
    code = ["-m", "tests.train.several", str(model), str(folder), *overrides]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes > 1 else []), *code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    return tuple(json.loads((folder / "losses.json").read_text()))


@pytest.mark.parametrize(
    ("how", "steps", "settings"),
    [
        ("packed", 2, ["tune.batch_size=8"]),
        ("padded", 3, ["tune.batch_size=4", "tune.lora_dropout=1e-12"]),
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
