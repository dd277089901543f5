"""Peak memory of whole runs, held against what `kilotune plan` says of them.

    python -m tests.support.peak_memory                    # every case, in both precisions
    python -m tests.support.peak_memory lora float32       # one

Each in a process of its own, whose largest resident set (of Linux) is read when the run has ended.
"""

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import kilotune
from kilotune.planning.job import ExecutionPath
from kilotune.recipe.load import load_recipe

CASES = {"lora": [], "cached": ["tune.layers=top:6"], "images": []}
PRECISIONS = ("float32", "bfloat16")
EXAMPLES = 26
SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "to", "ve")
WORDS = [first + second for first in SYLLABLES for second in SYLLABLES]
SETTINGS = (
    "tune.micro_batch_size=8", "tune.epochs=1", "tune.stopping.metric=loss",
    "judge.forgetting=never", "judge.base_check=say", "decoding.max_new_tokens=4",
    "data.max_length=2048",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes: planned, of which the libraries; resident before the run, and at its peak."""

    planned: int
    libraries: int
    before: int
    peak: int

    @property
    def off(self) -> float:
        """How far the plan is off in what is above the libraries, as a share of what it is."""
        return (self.planned - self.libraries) / (self.peak - self.before) - 1


def measure(case: str, precision: str) -> Peak:
    """Plan and run `case` in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--here", case, precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {done.stderr[-3000:]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(case: str, precision: str, folder: Path) -> Peak:
    """Plan and run `case` in this process."""
    model, data = _write(case, folder)
    recipe = load_recipe(
        settings={"data": {"train": str(data)}, "model": {"name": model}},
        overrides=[*SETTINGS, *CASES[case], f"model.precision={precision}"],
    )
    path = ExecutionPath.CACHED if case == "cached" else ExecutionPath.SHARED
    (way,) = (way for way in kilotune.plan(recipe).ways if way.name is path)
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident set begins anew
    before = _status("VmRSS")
    run = kilotune.run(recipe, folder / "run")
    tuning = json.loads((run.folder / "judgement.json").read_text())["tuning"]
    assert tuning["agreement"]["path"] == "packed"
    assert tuning["cache"]["used"] == (case == "cached")
    return Peak(way.memory.total, way.memory.runtime, before, _status("VmHWM"))


def _write(case: str, folder: Path) -> tuple[str, Path]:
    """A model and examples to tune it on, of about the same length."""
    rng, data = random.Random(0), folder / "data.csv"

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    labels = ["good" if n % 2 else "bad" for n in range(EXAMPLES)]
    if case != "images":
        rows = [f"{text(rng.randint(70, 85))},{label}" for label in labels]
        data.write_text("\n".join(["text,label", *rows]) + "\n")
        return "smollm2", data
    from tests.support.tiny_vision import picture, write_wider

    rows = []
    for n, label in enumerate(labels):
        picture(folder / f"{n}.png", 40 + 5 * n, (448, 448 + 28 * (n % 3)))
        rows.append(f"{n}.png,{text(rng.randint(8, 12))},{label}")
    data.write_text("\n".join(["image,text,label", *rows]) + "\n")
    return str(write_wider(folder / "model")), data


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    """A line for each case, or one as JSON where that is asked for."""
    if sys.argv[1:2] == ["--here"]:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asdict(measure_here(*sys.argv[2:], Path(folder)))))
        return
    asked = [tuple(sys.argv[1:])] if sys.argv[1:] else [(c, p) for c in CASES for p in PRECISIONS]
    for case, precision in asked:
        found = measure(case, precision)
        sizes = " ".join(f"{name} {size / 1e9:.2f}" for name, size in asdict(found).items())
        print(f"{case} {precision}: {sizes} GB; off by {found.off:+.1%}", flush=True)


if __name__ == "__main__":
    main()
