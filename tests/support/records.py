"""Run folders written by hand: what a finished run leaves, without running one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kilotune.evaluation.evidence import Figure, PairedTest, Resampling
from kilotune.evaluation.judgement import Judgement, judge_system
from kilotune.evaluation.verdict import Verdict
from kilotune.messages.sentences import phrase
from kilotune.recipe.load import load_recipe
from kilotune.rendering.wording import Wording
from kilotune.runs import documents, outcomes, record
from kilotune.runs.documents import DataDocument, JudgedEnvironmentDocument, SplitIds
from kilotune.runs.outcomes import JudgementDocument, VerdictDocument
from kilotune.runs.record import RunFolder
from kilotune.runs.schema_version import Document
from kilotune.training.tuning_result import Agreement, CacheUse, Tuning

LABELS = ["bad", "good"]
# Every kind that is a file of its own in the folder of a run or an ablation.
DOCUMENTS = [
    kind
    for module in (documents, outcomes)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Document) and kind.FILE
]


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


def written(folder: Path | RunFolder, name: str) -> Any:
    """What a JSON file of the run in `folder` holds, as any program reads it."""
    return json.loads((folder / name).read_bytes())


def data_document(**parts: list[str]) -> DataDocument:
    """data.json of a run with these ids in its parts."""
    return DataDocument(
        fingerprint="f" * 64, format="text-label", task="classify", labels=tuple(LABELS),
        wording=Wording("", "{text}"), split=SplitIds(**parts),
    )  # fmt: skip


def environment_document(
    started: str = "2026-01-01T10:00:00",
    seconds: dict[str, float] | None = None,
    tokens: dict[str, int] | None = None,
) -> JudgedEnvironmentDocument:
    """environment.json of a run that came to its verdict."""
    return JudgedEnvironmentDocument(
        started=started, code="c" * 64, packages={}, seconds=seconds or {}, tokens=tokens or {},
        dtype="torch.float32", device="cpu",
    )  # fmt: skip


def judgement_document(
    test: Sequence[Judgement], validation: Sequence[Judgement] = ()
) -> JudgementDocument:
    """judgement.json of a run whose systems came to these figures on its parts."""
    agreement, cache = Agreement("packed", "they agree"), CacheUse(False, "not asked for")
    tuning = Tuning((), 4, 3, 0.5, "early", 8, agreement, cache, None, 1000, 50)
    return JudgementDocument(
        task="classify", test=tuple(test), validation=tuple(validation),
        tuned_against_base=PairedTest(2, 1, 1, 1.0),
        gains={"accuracy": Figure(0.25, -0.125, 0.5)}, forgetting=None, tuning=tuning,
    )  # fmt: skip


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
    parts = {"train": ["data:100"], "validation": ids, "test": ["data:200", "data:201"]}
    folder.write(data_document(**parts))
    seconds, tokens = {"tune": 8.0, "judge": 2.0}, {"trained": trained, "generated": 50}
    folder.write(environment_document(started, seconds, tokens))
    for epoch, step in ((0.5, 1), (1.0, 2), (1.5, 3), (2.0, 4)):
        folder.append_metrics({"step": step, "epoch": epoch, "loss": 4.0 / step})
    folder.append_metrics({"step": 2, "epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 9.0})
    rows = predictions(dict(zip(ids, answers, strict=True)))
    folder.write_predictions(rows, record.VALIDATION)
    folder.write_predictions(predictions({"data:200": "good", "data:201": answers[0]}))
    references, settings = ["good"] * len(answers), Resampling(samples=50, seed=0)
    judged = judge_system("tuned", "classify", references, answers, LABELS, settings=settings)
    folder.write(judgement_document([judged], [judged]))
    folder.write(
        VerdictDocument(
            verdict=Verdict("healthy", phrase("as-recorded", text="healthy"), (), {}, ())
        )
    )
    (folder / record.REPORT).touch()
    return folder
