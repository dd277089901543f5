"""Run folders written by hand: what a finished run leaves, without running one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from kilotune.evaluation.evidence import Figure, PairedTest
from kilotune.evaluation.judgement import Judgement, judge_system
from kilotune.evaluation.verdict import Verdict
from kilotune.recipe.load import load_recipe
from kilotune.rendering.wording import Wording
from kilotune.runs import record
from kilotune.runs.record import RunFolder

LABELS = ["bad", "good"]


def predictions(answers: Mapping[str, str], truth: str = "good") -> list[dict[str, object]]:
    """Rows of a predictions file: the answers by id; `truth` is right for all of them."""
    return [
        {
            "id": id, "prompt": f"text of {id}", "reference": truth, **answered("base", "", truth),
            **answered("tuned", said, truth),
        }
        for id, said in answers.items()
    ]  # fmt: skip


def answered(system: str, said: str, truth: str) -> dict[str, object]:
    """What a row of a predictions file holds of one system."""
    right = said == truth
    found = {"prediction": said, "output": said, "right": right, "score": float(right)}
    return {f"{system}_{name}": value for name, value in found.items()}


def data_record(**parts: Sequence[str]) -> dict[str, object]:
    """data.json of a run with these ids in its parts."""
    return {
        "fingerprint": "f" * 64, "format": "text-label", "task": "classify", "labels": LABELS,
        "wording": Wording("", "{text}"), "split": {name: list(ids) for name, ids in parts.items()},
    }  # fmt: skip


def environment_record(**facts: object) -> dict[str, object]:
    """environment.json of a run that came to its verdict."""
    given = {"started": "2026-01-01T10:00:00", "code": "c" * 64, "seconds": {}, "packages": {}}
    return {**given, "dtype": "torch.float32", "device": "cpu", **facts}


def judgement_record(**parts: Sequence[Judgement]) -> dict[str, object]:
    """judgement.json of a run whose systems came to these figures on its parts."""
    cache = {"used": False, "below": 0, "streamed": 0}
    return {
        "task": "classify", **parts, "tuned_against_base": PairedTest(2, 1, 1, 1.0),
        "gains": {"accuracy": Figure(0.25, -0.125, 0.5)}, "forgetting": None, "preference": None,
        "tuning": {"stopped": "early", "best_step": 3, "micro_batch_size": 8, "cache": cache},
    }  # fmt: skip


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
    folder.write_json(record.DATA, data_record(**split))
    seconds, tokens = {"tune": 8.0, "judge": 2.0}, {"trained": trained, "generated": 50}
    told = environment_record(started=started, seconds=seconds, tokens=tokens)
    folder.write_json(record.ENVIRONMENT, told)
    for epoch, step in ((0.5, 1), (1.0, 2), (1.5, 3), (2.0, 4)):
        folder.append_metrics({"step": step, "epoch": epoch, "loss": 4.0 / step})
    folder.append_metrics({"step": 2, "epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 9.0})
    rows = predictions(dict(zip(ids, answers, strict=True)))
    folder.write_predictions(rows, record.VALIDATION)
    folder.write_predictions(predictions({"data:200": "good", "data:201": answers[0]}))
    judged = judge_system(
        "tuned", "classify", ["good"] * len(answers), answers, LABELS, bootstrap_samples=50, seed=0
    )
    folder.write_json(record.JUDGEMENT, judgement_record(validation=[judged], test=[judged]))
    folder.write_json(record.VERDICT, Verdict("healthy", "healthy", (), {}, ()))
    (folder / record.REPORT).touch()
    return folder
