"""A run's records as what the page shows."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kilotune.data.example import Task
from kilotune.data.finding import Finding
from kilotune.evaluation.evidence import Estimate, PairedTest
from kilotune.evaluation.fidelity import Fidelity
from kilotune.evaluation.forgetting import Forgetting
from kilotune.evaluation.health import Health
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.preference import Preference
from kilotune.evaluation.recommendation import Advice
from kilotune.evaluation.task_metrics import TASKS
from kilotune.evaluation.task_metrics import TITLES as METRICS
from kilotune.evaluation.verdict import Verdict
from kilotune.recipe.advice import next_commands
from kilotune.recipe.schema import Recipe
from kilotune.recipe.sharing import shown_place, shown_recipe
from kilotune.runs.documents import DataDocument, FindingsDocument, JudgedEnvironmentDocument
from kilotune.runs.outcomes import (
    AdviceDocument,
    FreezeProofDocument,
    JudgementDocument,
    PseudoLabels,
    PseudoLabelsDocument,
    VerdictDocument,
    VerificationDocument,
)
from kilotune.runs.record import RunFolder
from kilotune.training.tuning_result import Tuning

TITLES = {
    "majority": "commonest label",
    "tfidf": "bag of words (TF-IDF)",
    "encoder": "sentence encoder",
    "states": "base: hidden states",
    "few_shot": "base: few-shot",
    "base": "base model",
    "tuned": "tuned model",
}
# Where answers are no labels, what words alone can do is to copy one.
COPYING = {"majority": "commonest answer", "tfidf": "most similar (TF-IDF)"}
# Of the examples shown before and after, so many are ones that tuning spoilt, or left as good.
SHARES = {"worse": 1 / 3, "the same": 1 / 5}


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One line of the main table."""

    title: str
    figures: dict[str, Estimate]
    details: dict[str, Estimate]
    unreadable: int
    health: Health | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One example before and after: what both models said."""

    id: str
    prompt: str
    reference: str
    base: str
    tuned: str
    base_right: bool
    tuned_right: bool
    change: float


@dataclass(frozen=True, slots=True)
class RunView:
    """All that the page shows, in the form it shows it."""

    name: str
    recipe: Recipe
    recipe_yaml: str
    base: str
    preset: str
    verdict: Verdict
    next_commands: tuple[str, ...]
    task: Task
    unreadable: str
    systems: tuple[SystemRow, ...]
    examples: int
    parts: dict[str, int]
    tuned: Judgement
    gains: dict[str, Estimate]
    paired: PairedTest
    comparisons: dict[str, tuple[Comparison, ...]]
    forgetting: Forgetting | None
    verified: tuple[Fidelity, ...]
    pseudo_labels: PseudoLabels | None
    preference: Preference | None
    findings: tuple[Finding, ...]
    advice: tuple[Advice, ...]
    metrics: list[dict[str, float]]
    tuning: Tuning
    refit: Tuning | None
    environment: JudgedEnvironmentDocument
    frozen: int
    moved: int

    @property
    def learnt(self) -> int:
        """How many examples the final model has learnt from."""
        return self.parts["train"] + (self.parts["validation"] if self.refit else 0)


def read_run(folder: RunFolder) -> RunView:
    """Read the records of a finished run. Raises KilotuneError where one is missing."""
    recipe = folder.read_recipe(runs=())
    judgement = folder.read(JudgementDocument)
    proof = folder.read(FreezeProofDocument).proof
    shown = recipe.judge.before_after
    verdict, name = folder.read(VerdictDocument).verdict, folder.path.resolve().name
    steps = [step.arguments for step in verdict.next_steps]
    return RunView(
        name=name,
        recipe=recipe,
        recipe_yaml=shown_recipe(recipe),
        base=shown_place(recipe.model.name),
        preset=shown_place(recipe.preset),
        verdict=verdict,
        next_commands=tuple(next_commands(folder.path, steps, Path(name))),
        task=judgement.task,
        unreadable=TASKS[judgement.task].unreadable,
        systems=tuple(map(_system, judgement.test)),
        examples=judgement.test[0].examples,
        parts={part: len(ids) for part, ids in folder.read(DataDocument).split},
        tuned=judgement.tuned,
        gains={METRICS.get(name, name): figure for name, figure in judgement.gains.items()},
        paired=judgement.tuned_against_base,
        comparisons=before_after(folder.read_predictions(), shown),
        forgetting=judgement.forgetting,
        verified=known.found if (known := folder.read_if_there(VerificationDocument)) else (),
        pseudo_labels=_pseudo_labels(folder),
        preference=_preference(judgement.preference),
        findings=folder.read(FindingsDocument).findings,
        advice=advised.advice if (advised := folder.read_if_there(AdviceDocument)) else (),
        metrics=folder.read_metrics(),
        tuning=judgement.tuning,
        refit=judgement.refit,
        environment=folder.read(JudgedEnvironmentDocument),
        frozen=len(proof.frozen),
        moved=len(proof.moved),
    )


def _pseudo_labels(folder: RunFolder) -> PseudoLabels | None:
    """What came of self-training, without the folder of its file; None for a run without it."""
    known = folder.read_if_there(PseudoLabelsDocument)
    return replace(known.outcome, file=Path(known.outcome.file).name) if known else None


def _preference(found: Preference | None) -> Preference | None:
    return found and replace(found, judge=shown_place(found.judge))


def before_after(rows: list[dict[str, Any]], count: int) -> dict[str, tuple[Comparison, ...]]:
    """About `count` examples that tuning made better, made worse, and left: most changed first.

    At most a third are worse and a fifth the same, as long as there are others.
    """
    every = sorted(map(_comparison, rows), key=lambda c: (-abs(c.change), c.base == c.tuned))
    groups = {
        "better": [c for c in every if c.change > 0],
        "worse": [c for c in every if c.change < 0],
        "the same": [c for c in every if c.change == 0],
    }
    room = {name: round(count * share) for name, share in SHARES.items()}
    room["better"] = count - sum(min(room[n], len(groups[n])) for n in SHARES)
    left = room["better"] - len(groups["better"])
    for name in SHARES:
        more = max(0, min(left, len(groups[name]) - room[name]))
        room[name] += more
        left -= more
    return {name: tuple(group[: max(0, room[name])]) for name, group in groups.items()}


def _comparison(row: dict[str, Any]) -> Comparison:
    return Comparison(
        id=row["id"],
        prompt=row["prompt"],
        reference=row["reference"],
        base=row["base_output"],
        tuned=row["tuned_output"],
        base_right=row["base_right"],
        tuned_right=row["tuned_right"],
        change=row["tuned_score"] - row["base_score"],
    )


def system_title(name: str, figures: Iterable[str]) -> str:
    """What a system is called beside these figures, which are those of its task."""
    closed = TASKS["classify"].exact in figures
    return TITLES[name] if closed else COPYING.get(name, TITLES[name])


def _system(system: Judgement) -> SystemRow:
    return SystemRow(
        title=system_title(system.name, system.figures),
        figures={METRICS.get(name, name): figure for name, figure in system.figures.items()},
        details={METRICS.get(name, name): figure for name, figure in system.details.items()},
        unreadable=system.unreadable,
        health=system.health,
    )
