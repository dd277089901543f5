"""The documents of what came of a run, an ablation or a self-training: what their files hold.

Apart from the others, since what they are of takes a second to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, field_validator, model_validator

from kilotune.augmentation.policy import Count
from kilotune.data.example import Task
from kilotune.evaluation.adoption import Adoption
from kilotune.evaluation.confidence import Trust
from kilotune.evaluation.decoding_race import DecodingChoice
from kilotune.evaluation.evidence import Estimate, PairedTest
from kilotune.evaluation.fidelity import Fidelity
from kilotune.evaluation.forgetting import Forgetting
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.learning_curve import LearningCurve
from kilotune.evaluation.preference import Preference
from kilotune.evaluation.recommendation import Advice
from kilotune.evaluation.survey import SystemSurvey
from kilotune.evaluation.verdict import Verdict
from kilotune.messages.sentences import phrase
from kilotune.models.proof import FreezeProof
from kilotune.recipe.difference import SettingChange
from kilotune.runs import record
from kilotune.runs.cost import Cost
from kilotune.runs.schema_version import Document
from kilotune.training.tuning_result import Tuning

# What may be judged.
SYSTEMS = {"majority", "tfidf", "encoder", "states", "few_shot", "base", "tuned"}


class AdviceDocument(Document):
    """What the baselines of a run advised before it was tuned, and the figures behind that."""

    FILE = record.ADVICE

    advice: tuple[Advice, ...]
    systems: tuple[SystemSurvey, ...]
    curves: tuple[LearningCurve, ...]

    @field_validator("advice")
    @classmethod
    def _sayable(cls, advice: tuple[Advice, ...]) -> tuple[Advice, ...]:
        for one in advice:
            str(one)
        return advice


class FreezeProofDocument(Document):
    """That frozen tensors stayed as they were, and trained ones moved."""

    FILE, SPREAD = record.PROOF, "proof"

    proof: FreezeProof


class JudgementDocument(Document):
    """What every system came to, on the held-out test, on validation, and out of fold.

    `gains` are of the tuned model over the base model, by figure. Of `tuning` the log and the
    gradients stand in files of their own.
    """

    FILE = record.JUDGEMENT

    task: Task
    test: tuple[Judgement, ...]
    validation: tuple[Judgement, ...]
    out_of_fold: tuple[Judgement, ...] = ()
    tuned_against_base: PairedTest
    gains: dict[str, Estimate]
    forgetting: Forgetting | None
    preference: Preference | None = None
    test_opened: str = ""
    tuning: Tuning
    refit: Tuning | None = None

    @model_validator(mode="after")
    def _with_the_tuned_model(self) -> Self:
        if "tuned" not in [system.name for system in self.test]:
            raise ValueError("test: the tuned model is not among the systems")
        if {system.name for system in self.test} - SYSTEMS:
            raise ValueError("test: a system of another name")
        if len({tuple(system.figures) for system in self.test}) > 1 or len(self.tuned.figures) != 2:
            raise ValueError("test: every system has the same two figures")
        return self

    @property
    def tuned(self) -> Judgement:
        """What the tuned model came to on the test."""
        return next(system for system in self.test if system.name == "tuned")


class VerdictDocument(Document):
    """The verdict; with it, a run is judged."""

    FILE, SPREAD = record.VERDICT, "verdict"

    verdict: Verdict

    @classmethod
    def upgraded(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """With the sentences that a verdict once was as they are."""
        upgraded: dict[str, Any] = _upgraded(tree)
        return upgraded

    @field_validator("verdict")
    @classmethod
    def _sayable(cls, verdict: Verdict) -> Verdict:
        verdict.sentences()
        return verdict


def _upgraded(verdict: Any) -> Any:
    """A verdict whose sentences are texts, with each as a phrase."""
    try:
        steps = [(step["arguments"], step["why"]) for step in verdict["next_steps"]]
        return {
            **{name: verdict[name] for name in ("name", "figures")},
            "said": phrase("as-recorded", text=verdict["summary"]),
            "remarks": [phrase("as-recorded", text=remark) for remark in verdict["remarks"]],
            "next_steps": [
                {"arguments": arguments, "reason": phrase("as-recorded", text=why)}
                for arguments, why in steps
            ],
            "doubt": phrase("as-recorded", text=doubt) if (doubt := verdict.get("doubt")) else None,
        }
    except (LookupError, TypeError, AttributeError):
        return verdict


class AugmentedExample(BaseModel):
    """An example that augmentation made, and the epoch that it is of where each has its own."""

    id: str
    parent: str | None
    operation: str | None
    epoch: int | None = None
    text: str


class AugmentationDocument(Document):
    """What augmentation made: counts by operation, each example, and a digest of them."""

    FILE = record.AUGMENTATION

    applied: str
    fingerprint: str
    counts: dict[str, Count]
    examples: tuple[AugmentedExample, ...]


class DecodingDocument(Document):
    """How answers are generated, and what that was chosen by."""

    FILE, SPREAD = record.DECODING, "choice"

    choice: DecodingChoice


class VerificationDocument(Document):
    """How exports of a run answered in other programs: the last time for each of both."""

    FILE = record.VERIFICATION

    found: tuple[Fidelity, ...]

    def with_(self, new: Fidelity) -> Self:
        """With `new` in the place of what was known of the same export in the same program."""

        def key(one: Fidelity) -> tuple[str, str, str]:
            return one.program, one.export, one.form

        kept = (one for one in self.found if key(one) != key(new))
        return self.model_copy(update={"found": (*kept, new)})


@dataclass(frozen=True, slots=True)
class TriedVariant:
    """One value of a factor: how it differs from the best so far, and what was decided.

    `trials` counts those it was given: halving takes the hopeless out early. `gain` is measured on
    those.
    """

    value: str
    changes: Mapping[str, SettingChange]
    trials: int
    gain: Estimate
    decision: str
    reason: str
    cost: Cost


@dataclass(frozen=True, slots=True)
class Rung:
    """One factor: its value before, what was tried, what was adopted if anything."""

    factor: str
    before: str
    verdict: str
    tried: tuple[TriedVariant, ...]
    adopted: str | None


class AblationDocument(Document):
    """How far an ablation is, and what it changed in its base recipe."""

    FILE = record.ABLATION

    ended: str
    verdict: Verdict | None
    out_of_fold: Estimate | None
    rungs: tuple[Rung, ...]
    changes: dict[str, SettingChange]

    @classmethod
    def upgraded(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """With the sentences that a verdict once was as they are."""
        return {**tree, "verdict": _upgraded(tree.get("verdict"))}


@dataclass(frozen=True, slots=True)
class Picked:
    """What one model's guesses gave: how many were taken, and of them what the file confirms.

    `real` is None where the file has no labels; those are looked at for this figure alone.
    """

    taken: int
    by_label: Mapping[str, int]
    left: Mapping[str, int]
    real: Estimate | None


@dataclass(frozen=True, slots=True)
class SeedOfRound:
    """One seed in a round: the thresholds' evidence, what each fold took, and the metric.

    `longer` is the metric without pseudo-labels in as many steps; None where `after` is no gain.
    """

    seed: int
    trust: Trust
    folds: tuple[Picked, ...]
    before: float
    after: float
    longer: float | None = None


@dataclass(frozen=True, slots=True)
class SelfTrainingRound:
    """One round: its seeds, the decisions where there are any, and in words why it ended so.

    `adoption` is over the round before, `beyond` over as many steps without pseudo-labels.
    """

    number: int
    seeds: tuple[SeedOfRound, ...]
    kept: bool
    reason: str
    adoption: Adoption | None = None
    beyond: Adoption | None = None


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """What came of a self-training.

    Of the file's `rows`, `left` were not looked at, by reason; `chosen` and `trust` are of the
    labels that are tuned on. `cost` is that of the folds' tunings and of the model that labels.
    """

    file: str
    rows: int
    left: Mapping[str, int]
    looked_at: int
    target: float
    rounds: tuple[SelfTrainingRound, ...]
    kept: int
    cost: Cost
    chosen: Picked | None = None
    trust: Trust | None = None

    def lines(self) -> list[str]:
        """The outcome in words."""
        said = [f"round {one.number}: {one.reason}" for one in self.rounds]
        if self.chosen is None or self.trust is None:
            return [*said, "no pseudo-label is used: tuning goes on as without them"]
        real = f"; by the file's own labels {self.chosen.real}" if self.chosen.real else ""
        return [
            *said,
            f"{self.chosen.taken} pseudo-labels are tuned on, from a confidence of "
            f"{self.trust.threshold:.3f} up; their precision out of fold "
            f"{self.trust.precision}{real}",
        ]


class PseudoLabelledExample(BaseModel):
    """A row that was tuned on as labelled by the model."""

    id: str
    row: int
    parent: str | None
    operation: str | None
    answer: str | None
    weight: float
    confidence: float


class PseudoLabelsDocument(Document):
    """What came of self-training, and the examples that are tuned on, with a digest of them."""

    FILE, SPREAD = record.PSEUDO_LABELS, "outcome"

    fingerprint: str
    outcome: PseudoLabels
    examples: tuple[PseudoLabelledExample, ...]

    @model_validator(mode="after")
    def _with_what_is_kept(self) -> Self:
        found = self.outcome
        if found.kept and not (found.chosen and found.trust):
            raise ValueError("nothing is said of the pseudo-labels that are kept")
        return self
