"""Run folders written by hand: what a finished run leaves, without running one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kilotune.evaluate.judgement import judge_system
from kilotune.experiments import record
from kilotune.experiments.record import RunFolder
from kilotune.recipe.load import load_recipe

LABELS = ["bad", "good"]


def predictions(answers: Mapping[str, str], truth: str = "good") -> list[dict[str, object]]:
    """Rows of a predictions file: the answers by id; `truth` is right for all of them."""
    return [
        {
            "id": id, "prompt": f"text of {id}", "reference": truth, "tuned_prediction": said,
            "tuned_output": said, "tuned_right": said == truth,
        }
        for id, said in answers.items()
    ]  # fmt: skip


def write_run(
    path: Path,
    answers: Sequence[str],
    *overrides: str,
    started: str = "2026-01-01T10:00:00",
    trained: int = 1000,
    first: int = 2,
) -> RunFolder:
    """A finished run whose validation examples `data:first…` got these `answers`."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    data = {"train": "/films.csv", "task": "classify"}
    folder.write_recipe(load_recipe(settings={"data": data}, overrides=overrides))
    ids = [f"data:{first + i}" for i in range(len(answers))]
    split = {"train": ["data:100"], "validation": ids, "test": ["data:200", "data:201"]}
    folder.write_json(record.DATA, {"fingerprint": "f" * 64, "task": "classify", "split": split})
    folder.write_json(
        record.ENVIRONMENT,
        {
            "started": started,
            "code": "c" * 64,
            "seconds": {"tune": 8.0, "judge": 2.0},
            "tokens": {"trained": trained, "generated": 50},
        },
    )
    for epoch, step in ((0.5, 1), (1.0, 2), (1.5, 3), (2.0, 4)):
        folder.append_metrics({"step": step, "epoch": epoch, "loss": 4.0 / step})
    folder.append_metrics({"step": 2, "epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 9.0})
    rows = predictions(dict(zip(ids, answers, strict=True)))
    folder.write_predictions(rows, record.VALIDATION)
    folder.write_predictions(predictions({"data:200": "good", "data:201": answers[0]}))
    judged = judge_system(
        "tuned", "classify", ["good"] * len(answers), answers, LABELS, bootstrap_samples=50, seed=0
    )
    folder.write_json(record.JUDGEMENT, {"task": "classify", "validation": [judged], "test": []})
    folder.write_json(record.VERDICT, {"name": "healthy"})
    return folder
