"""One cell, in a process of its own: learn, answer, and say what that took.

    python -m benchmarks.per_label.worker MODULE:FUNCTION JOB.json OUT.json

The function is given a Job, which has no answers to the test, and gives back what it has Learnt.
Needs the standard library alone, so that what is measured is the system.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

Turn = Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """What a system is given. `prompts` and `asked` are conversations that end with the user."""

    kind: str
    labels: tuple[str, ...]
    system: str | None
    question: str | None
    texts: tuple[str, ...]
    prompts: tuple[tuple[Turn, ...], ...]
    answers: tuple[str, ...]
    asked_texts: tuple[str, ...]
    asked: tuple[tuple[Turn, ...], ...]
    seed: int
    model: str
    encoder: str
    scratch: str


@dataclass(frozen=True)
class Learnt:
    """What was learnt: it answers the test, as texts.

    `reported` is what the system says of itself, by figure: value, low and high of an interval.
    `seconds` is what learning took where the clock of the whole would count more than that.
    """

    answer: Callable[[], list[str]]
    reported: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    seconds: float | None = None
    note: str = ""


def peak_bytes() -> int:
    """The largest resident set of this process, without that of the one which started it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # no Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def work(function: Callable[[Job], Learnt], job: Job) -> dict[str, object]:
    """What came of a job, as plain figures and texts."""
    start = time.perf_counter()
    learnt = function(job)
    learn_seconds = time.perf_counter() - start
    start = time.perf_counter()
    answers = learnt.answer()
    return {
        "answers": answers,
        "reported": dict(learnt.reported),
        "learn_seconds": learn_seconds if learnt.seconds is None else learnt.seconds,
        "answer_seconds": time.perf_counter() - start,
        "peak_bytes": peak_bytes(),
        "note": learnt.note,
    }


def written(job: Job) -> str:
    """The job as JSON."""
    return json.dumps(asdict(job), ensure_ascii=False)


def main() -> None:
    """Do the job that is named."""
    name, job, out = sys.argv[1:]
    module, _, function = name.partition(":")
    found = work(
        getattr(importlib.import_module(module), function),
        Job(**json.loads(Path(job).read_text(encoding="utf-8"))),
    )
    Path(out).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
