"""The documents that every run has: what their files hold."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from kilotune.data.example import Task
from kilotune.data.finding import Finding
from kilotune.rendering.wording import Wording
from kilotune.runs.schema_version import ENVIRONMENT, Document


class SplitIds(BaseModel):
    """The ids of the examples of each part."""

    train: list[str]
    validation: list[str]
    test: list[str]


class OwnSystem(BaseModel):
    """The system message that examples bring along: None where they differ, "" where none does."""

    text: str | None


class DataDocument(Document):
    """What a run's examples are: a digest of them, how they are put to the model, their parts.

    `own_system` is not known of runs of before it was kept.
    """

    FILE = "data.json"

    fingerprint: str
    format: str
    task: Task
    labels: tuple[str, ...]
    wording: Wording
    split: SplitIds
    own_system: OwnSystem | None = None


class EnvironmentDocument(Document):
    """When and where a run was made, by what, and what it took: seconds by stage, tokens by use.

    `identity` says that `identity.json` was written. Of runs of before they were kept, `code`,
    `identity` and `tokens` are not known.
    """

    FILE = ENVIRONMENT

    started: str
    python: str | None = None
    system: str | None = None
    processor: str | None = None
    cores: int | None = None
    packages: dict[str, str | None]
    code: str | None = None
    identity: bool = False
    seconds: dict[str, float]
    tokens: dict[str, int] = Field(default_factory=dict)


class JudgedEnvironmentDocument(EnvironmentDocument):
    """That of a run that came to its verdict: with the type and the place of its weights too."""

    dtype: str
    device: str
    threads: int | None = None


class FindingsDocument(Document):
    """What the checks found in the data."""

    FILE, BARE = "findings.json", "findings"

    findings: tuple[Finding, ...]

    @classmethod
    def upgraded(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """With the sentences that findings once were, in place of values."""
        found = tree.get("findings")
        return (
            {**tree, "findings": list(map(_upgraded, found))} if isinstance(found, list) else tree
        )

    @field_validator("findings")
    @classmethod
    def _sayable(cls, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        for found in findings:
            str(found)
        return findings


def _upgraded(found: Any) -> Any:
    if not isinstance(found, dict) or "message" not in found:
        return found
    kept = {name: value for name, value in found.items() if name not in ("message", "fix")}
    return {**kept, "values": {"text": found["message"], "fix": found.get("fix")}}


class IdentityDocument(Document):
    """What a run is of: the settings that bind it, digests of its model and of what it tuned."""

    FILE = "identity.json"

    settings: dict[str, Any] | None = None
    weights: str | None = None
    config: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    tuned: str | None = None

    def known(self) -> dict[str, Any]:
        """What is on record, by part."""
        return {name: value for name, value in self.content().items() if value is not None}


class FoldsDocument(Document):
    """The ids that each fold of an ablation holds out; it tells an ablation from a run."""

    FILE, BARE = "folds.json", "folds"

    folds: tuple[tuple[str, ...], ...]


class BaseScoresDocument(Document):
    """The base model's score for each training example, which an ablation's verdicts need."""

    FILE, BARE = "base.json", "scores"

    scores: dict[str, float]


class LogLine(Document):
    """A line of the training log: numbers by name, None for one that is not finite."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int | float | None]

    step: int


class AnswerRow(BaseModel):
    """A judged example, as a row of a Parquet file: what it asks, and how both models do."""

    id: str
    prompt: str
    reference: str
    base_prediction: str
    base_right: bool
    base_score: float
    tuned_prediction: str
    tuned_right: bool
    tuned_score: float


class SaidRow(AnswerRow):
    """The same with what both models said."""

    base_output: str
    tuned_output: str


ANSWERS, ANSWERS_WITH_TEXTS = TypeAdapter(list[AnswerRow]), TypeAdapter(list[SaidRow])
