"""kilotune, by its public functions: a run of a preset, then its predictions.

The run's own test is the first rows that are asked, the fewest it takes figures of, and with
made-up answers: it needs a test to be finished, and has no say in what is learnt.
"""

import csv
import json
from pathlib import Path

import kilotune
from benchmarks.per_label.worker import Job, Learnt
from kilotune.data.files.writers import write_table
from kilotune.evaluation.evidence import ENOUGH
from kilotune.runs.outcomes import JudgementDocument
from kilotune.runs.record import RunFolder
from kilotune.workflows.run import Run

# What `kilotune run` does besides is of the test, or for other ends: it says nothing of new texts.
LEARNING = ("load", "baseline", "tune", "search", "folds")


def auto(job: Job) -> Learnt:
    """The preset that is the default."""
    return _tuned(job, "auto")


def article(job: Job) -> Learnt:
    """The classic advice, verbatim."""
    return _tuned(job, "article")


def _tuned(job: Job, preset: str) -> Learnt:
    """What it says of itself is of its answers out of fold, or to validation where it is large."""
    folder = Path(job.scratch)
    rows = dict(zip(job.asked_texts[:ENOUGH], job.answers, strict=False))
    train = _file(folder / "train.csv", job.texts, job.answers)
    test = _file(folder / "test.csv", tuple(rows), tuple(rows.values()))
    recipe = kilotune.load_recipe(
        preset=preset,
        settings={
            "seed": job.seed,
            "model": {"name": job.model},
            "data": {
                "train": str(train),
                "test": str(test),
                "task": job.kind,
                "system": job.system,
                "question": job.question,
            },
            "judge": {"forgetting": "never", "base_check": "say", "baselines": []},
        },
    )
    run = kilotune.run(recipe, folder / "run")
    return Learnt(
        lambda: _predictions(run, job),
        _reported(run),
        sum(_seconds(run).get(stage, 0.0) for stage in LEARNING),
        run.verdict.name,
    )


def _reported(run: Run) -> dict[str, tuple[float, float, float]]:
    judged = RunFolder(run.folder).read(JudgementDocument)
    systems = judged.out_of_fold or judged.validation
    tuned = next((system.figures for system in systems if system.name == "tuned"), {})
    return {name: (f.value, f.low, f.high) for name, f in tuned.items() if f.value is not None}


def _seconds(run: Run) -> dict[str, float]:
    found: dict[str, float] = json.loads((run.folder / "environment.json").read_text())["seconds"]
    return found


def _predictions(run: Run, job: Job) -> list[str]:
    folder = Path(job.scratch)
    asked = folder / "asked.csv"
    write_table(asked, ("text",), [{"text": text} for text in job.asked_texts])
    kilotune.predict(run.folder, asked, folder / "said.csv")
    with (folder / "said.csv").open(encoding="utf-8-sig", newline="") as file:
        return [row["prediction"] for row in csv.DictReader(file)]


def _file(path: Path, texts: tuple[str, ...], answers: tuple[str, ...]) -> Path:
    rows = [{"text": text, "label": label} for text, label in zip(texts, answers, strict=True)]
    write_table(path, ("text", "label"), rows)
    return path
