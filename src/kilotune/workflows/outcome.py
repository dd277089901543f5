"""What the stages of a run came to, and the records of it."""

from dataclasses import dataclass, replace
from pathlib import Path

from kilotune.data.example import Example, references
from kilotune.evaluation.evidence import PairedTest
from kilotune.evaluation.forgetting import Forgetting
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.preference import Preference
from kilotune.evaluation.verdict import Verdict
from kilotune.runs import record
from kilotune.runs.outcomes import JudgementDocument, VerdictDocument
from kilotune.runs.record import RunFolder
from kilotune.session.judging import Judged, LabelProbabilities
from kilotune.session.out_of_fold import OutOfFold
from kilotune.training.tuning_result import Tuning


@dataclass(frozen=True, slots=True)
class Developed:
    """What was measured of the model that has not seen validation, and of all systems beside it.

    `on_training` is of a sample of its training examples; `scored` are its label probabilities.
    """

    tuning: Tuning
    on_training: Judgement
    on_validation: Judged | None
    scored: LabelProbabilities


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found: what was measured, where its weights are, and what that amounts to.

    `refit` is the training of the final model, where that is another than the one developed.
    """

    developed: Developed
    beyond: OutOfFold | None
    refit: Tuning | None
    on_test: Judged
    tuned_against_base: PairedTest
    verdict: Verdict
    forgetting: Forgetting | None
    weights: Path
    preference: Preference | None


def record_outcome(folder: RunFolder, outcome: Outcome) -> None:
    """Write what was found, the verdict last: it marks the run as judged."""
    beyond, refitted = outcome.beyond, outcome.refit
    on_validation, on_test = outcome.developed.on_validation, outcome.on_test
    folder.write_predictions(_prediction_rows(on_test))
    if on_validation:
        folder.write_predictions(_prediction_rows(on_validation), record.VALIDATION)
    if beyond:
        folder.write_predictions(_prediction_rows(beyond.judged), record.HELD_OUT)
    found = JudgementDocument(
        task=on_test.task,
        test=tuple(on_test.judgements.values()),
        validation=tuple(on_validation.judgements.values()) if on_validation else (),
        out_of_fold=tuple(beyond.judged.judgements.values()) if beyond else (),
        tuned_against_base=outcome.tuned_against_base,
        gains=on_test.gains("base", "tuned"),
        forgetting=outcome.forgetting,
        preference=outcome.preference,
        test_opened="once, after the best checkpoint was chosen",
        # Logs and gradients are in files of their own.
        tuning=replace(outcome.developed.tuning, history=(), gradients=None),
        refit=refitted and replace(refitted, history=(), gradients=None),
    )
    folder.write(found)
    folder.write(VerdictDocument(verdict=outcome.verdict))


def _prediction_rows(judged: Judged) -> list[dict[str, object]]:
    right = {name: judged.right(name) for name in judged.answers}
    graded = {name: judged.scores(name) for name in judged.answers}
    rows = []
    for index, (example, reference) in enumerate(
        zip(judged.examples, references(judged.examples), strict=True)
    ):
        row: dict[str, object] = {
            "id": example.id,
            "prompt": _shown(example),
            "reference": reference,
        }
        for name, said in judged.answers.items():
            row[f"{name}_prediction"] = said.predictions[index]
            row[f"{name}_right"] = right[name][index]
            row[f"{name}_score"] = graded[name][index]
            if said.texts:
                row[f"{name}_output"] = said.texts[index]
            if name == "tuned" and said.token_ids:
                row["tuned_token_ids"] = list(said.token_ids[index])
        rows.append(row)
    return rows


def _shown(example: Example) -> str:
    """What the user says last, with the names of images in their places."""
    asked = next((m for m in reversed(example.messages) if m.role == "user"), None)
    parts = () if asked is None else asked.parts
    return "".join(p if isinstance(p, str) else f"[{p.source or 'image'}]" for p in parts)
