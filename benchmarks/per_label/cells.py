"""Cells of the benchmark, measured one by one, each in a process of its own, and kept."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.per_label.systems import System
from benchmarks.per_label.tasks import HELD_OUT, Draw, Rows, Task, draw
from benchmarks.per_label.worker import Job, written
from kilotune.data.example import Example, Message, Origin
from kilotune.data.files.claims import held
from kilotune.data.files.writers import remove, written_atomically
from kilotune.evaluation.judgement import example_scores, judge_system
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE, reader
from kilotune.rendering.wording import wording

ROOT = Path(__file__).parents[2]
SAMPLES = 2000
LIBRARIES = ("kilotune", "torch", "transformers", "peft", "scikit-learn", "trl", "setfit")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One measurement."""

    task: str
    size: int
    seed: int
    system: str

    def __str__(self) -> str:
        return f"{self.task} {self.size} rows, seed {self.seed}, {self.system}"


FIGURE = pa.struct([("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64())])
# `exact` and `graded` are the kind's two figures: accuracy and macro-F1, or exact match and token
# or field F1. `right` and `scores` are of the test rows, in the order that the seed drew them.
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("size", pa.int32()),
        ("seed", pa.int32()),
        ("system", pa.string()),
        ("kind", pa.string()),
        ("held_out", pa.bool_()),
        ("exact", FIGURE),
        ("graded", FIGURE),
        ("reported_exact", FIGURE),
        ("reported_graded", FIGURE),
        ("unreadable", pa.int32()),
        ("learn_seconds", pa.float64()),
        ("answer_seconds", pa.float64()),
        ("peak_bytes", pa.int64()),
        ("beside", pa.float64()),
        ("right", pa.list_(pa.bool_())),
        ("scores", pa.list_(pa.float32())),
        ("predictions", pa.list_(pa.string())),
        ("note", pa.string()),
        ("measured", pa.string()),
        ("where", pa.string()),
        ("versions", pa.string()),
    ]
)


class Results:
    """The file of finished cells, a row each. Several processes may add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict]:
        """All of them, in the order of the cells; None for what older files did not keep."""
        if not self.path.exists():
            return []
        found: list[dict] = pq.read_table(self.path, schema=SCHEMA).to_pylist()
        return found

    def done(self) -> set[Cell]:
        """The cells that are measured."""
        if not self.path.exists():
            return set()
        names = [field.name for field in fields(Cell)]
        return {Cell(**row) for row in pq.read_table(self.path, columns=names).to_pylist()}

    def add(self, row: dict) -> None:
        """Add a row, in the place of an older one of its cell."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        with held(lock, self.path, wait=lambda: None):
            others = [other for other in self.rows() if _cell(other) != _cell(row)]
            table = pa.Table.from_pylist(sorted([*others, row], key=_cell), schema=SCHEMA)
            with written_atomically(self.path) as part:
                pq.write_table(table, part, compression="zstd")
            remove(lock)


def _cell(row: dict) -> Cell:
    return Cell(**{field.name: row[field.name] for field in fields(Cell)})


@dataclass(frozen=True, slots=True)
class Bench:
    """What cells are made of, by name, and what they are measured with.

    `peer_python` is an interpreter that has the other tools; without one their cells are left out.
    """

    tasks: dict[str, Task]
    systems: dict[str, System]
    test_rows: int
    peer_python: str | None
    model: str = ""
    encoder: str = ""

    def cells(
        self,
        tasks: Iterable[str],
        sizes: Iterable[int],
        seeds: Iterable[int],
        systems: Iterable[str],
    ) -> list[Cell]:
        """Those that can be measured, seed after seed, smaller before larger and dearer."""
        return [
            Cell(task, size, seed, system)
            for seed in seeds
            for size in sorted(sizes)
            for system in (name for name in self.systems if name in set(systems))
            for task in tasks
            if self.systems[system].can(self.tasks[task])
        ]

    def measure(self, cell: Cell, drawn: Draw) -> dict:
        """The row of a cell. Raises RuntimeError with what its process said, where it failed."""
        task, system = self.tasks[cell.task], self.systems[cell.system]
        python = self.peer_python if system.peer else sys.executable
        assert python is not None  # such cells are not begun
        with tempfile.TemporaryDirectory() as scratch:
            job = self.job(task, drawn, cell, scratch)
            others = Others()
            found = in_process(python, system.run, job, Path(scratch))
        return {
            **{field.name: getattr(cell, field.name) for field in fields(Cell)},
            **judged(task, job.labels, [row.answer for row in drawn.test], found, cell.seed),
            "kind": task.kind,
            "held_out": cell.task in HELD_OUT,
            **{n: found[n] for n in ("learn_seconds", "answer_seconds", "peak_bytes", "note")},
            "beside": others.cores(),
            "measured": time.strftime("%Y-%m-%d"),
            "where": where(),
            "versions": versions(python),
        }

    def job(self, task: Task, drawn: Draw, cell: Cell, scratch: str) -> Job:
        """What a system is given: no answer of the test."""
        train = drawn.train(cell.size)
        # All labels that there are, as a user knows them.
        every = {row.answer for row in (*drawn.pool, *drawn.test)}
        labels = tuple(sorted(every)) if task.kind == "classify" else ()
        words = wording(task.system, task.question, labels)

        def asked(text: str) -> tuple[dict[str, str], ...]:
            example = words.apply(Example("asked", (Message("user", text),), Origin("asked", 0)))
            return tuple({"role": m.role, "content": m.text} for m in example.messages)

        return Job(
            kind=task.kind,
            labels=labels,
            system=task.system,
            question=task.question,
            texts=tuple(row.text for row in train),
            prompts=tuple(asked(row.text) for row in train),
            answers=tuple(row.answer for row in train),
            asked_texts=tuple(row.text for row in drawn.test),
            asked=tuple(asked(row.text) for row in drawn.test),
            seed=cell.seed,
            model=self.model,
            encoder=self.encoder,
            scratch=scratch,
        )


def measure_all(
    bench: Bench,
    cells: Sequence[Cell],
    results: Results,
    say: Callable[[str], None],
    *,
    again: bool = False,
) -> int:
    """Measure those of `cells` that are not in `results`, or `again` all; how many failed.

    Each is kept once it is measured: after Ctrl-C the same call goes on with the next.
    """
    failed = 0
    done = set() if again else results.done()
    missing = [cell for cell in cells if cell not in done]
    for number, cell in enumerate(missing, 1):
        head = f"[{number}/{len(missing)}] {cell}"
        if not again and cell in results.done():  # another process has been faster
            continue
        if bench.systems[cell.system].peer and bench.peer_python is None:
            failed += 1
            say(f"{head}: not measured, no interpreter has it (make peers)")
            continue
        rows = _rows(bench.tasks[cell.task])
        try:
            drawn = draw(bench.tasks[cell.task], rows, cell.seed, bench.test_rows)
            row = bench.measure(cell, drawn)
        except (RuntimeError, ValueError) as error:
            failed += 1
            say(f"{head}: failed: {error}")
            continue
        results.add(row)
        say(
            f"{head}: {row['exact']['value']:.3f} / {row['graded']['value']:.3f}, "
            f"{row['learn_seconds']:.0f} + {row['answer_seconds']:.0f} s, "
            f"{row['peak_bytes'] / 1e9:.2f} GB {row['note']}"
        )
    return failed


@cache
def _rows(task: Task) -> Rows:
    return task.rows()


def in_process(python: str, function: str, job: Job, folder: Path) -> dict:
    """What came of a job in a process of its own."""
    given, out = folder / "job.json", folder / "out.json"
    given.write_text(written(job), encoding="utf-8")
    command = [python, "-m", "benchmarks.per_label.worker", function, str(given), str(out)]
    # Whatever this process imports from, the other does too.
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}\n{done.stderr[-3000:]}")
    found: dict = json.loads(out.read_text(encoding="utf-8"))
    return found


class Others:
    """How busy the machine is with other programs, from now on."""

    def __init__(self) -> None:
        self.start = self._now()

    def cores(self) -> float:
        """How many cores they used, a mean over the time since."""
        wall, busy = (now - then for now, then in zip(self._now(), self.start, strict=True))
        return max(0.0, busy / wall)

    @staticmethod
    def _now() -> tuple[float, float]:
        every, own = psutil.cpu_times(), os.times()
        busy = sum(every) - every.idle - getattr(every, "iowait", 0.0)
        return own.elapsed, busy - (own.user + own.system + own.children_user + own.children_system)


def judged(
    task: Task, labels: Sequence[str], truth: Sequence[str], found: dict, seed: int
) -> dict[str, object]:
    """The figures of answers to the test, and what the system had said of itself."""
    read = reader(task.kind, labels, wording(task.system, task.question, labels))
    said = [read(answer) for answer in found["answers"]]
    metrics = TASKS[task.kind]
    settings = {"samples": SAMPLES, "seed": seed}
    figures = judge_system("system", task.kind, truth, said, labels, settings=settings).figures
    row: dict[str, object] = {
        "unreadable": sum(one == UNREADABLE for one in said),
        "right": [metrics.right(one, true) for one, true in zip(said, truth, strict=True)],
        "scores": example_scores(task.kind, metrics.graded, truth, said, labels),
        "predictions": said if task.kind == "classify" else None,
    }
    for column, name in (("exact", metrics.exact), ("graded", metrics.graded)):
        figure, own = figures[name], found["reported"].get(name)
        row[column] = {"value": figure.value, "low": figure.low, "high": figure.high}
        row[f"reported_{column}"] = own and dict(zip(("value", "low", "high"), own, strict=True))
    return row


def where() -> str:
    """The machine, in words."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
    return f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads"


@cache
def versions(python: str) -> str:
    """The libraries that an interpreter has, as JSON, and the commit that is measured."""
    code = (
        "import json, sys\n"
        "from importlib.metadata import PackageNotFoundError, version\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        found[name] = version(name)\n"
        "    except PackageNotFoundError:\n"
        "        pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([python, "-c", code, *LIBRARIES], capture_output=True, text=True)
    found = json.loads(done.stdout or "{}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT
    )
    return json.dumps({**found, "commit": commit.stdout.strip()})
