"""What readers rely on in the records of a run: a file of another form is damaged.

Of each record only what is read is written down here; what else it holds is let through.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

from kilotune.data.example import Task


class _Fields(BaseModel):
    """An object with at least these fields, each of just this type."""

    model_config = ConfigDict(strict=True)


class FigureRecord(_Fields):
    """A value with its interval, or neither."""

    value: float | None
    low: float | None
    high: float | None

    @field_validator("high")
    @classmethod
    def _whole(cls, high: float | None, known: Any) -> float | None:
        if len({end is None for end in (*known.data.values(), high)}) > 1:
            raise ValueError("a figure has a value and both ends of its interval, or none of them")
        return high


class Counts(_Fields):
    """How answers came out."""

    model_config = ConfigDict(strict=True, extra="forbid")

    answers: int
    stopped: int
    cut: int
    empty: int
    looping: int
    echoing: int
    foreign: int
    unparsable: int


class PairedRecord(_Fields):
    """Wins, losses and ties."""

    wins: int
    losses: int
    ties: int
    p_value: float


class ClassRow(_Fields):
    """The figures of one class."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class ConfusionTable(_Fields):
    """The confusion matrix."""

    labels: list[str]
    counts: list[list[int]]


class BinRow(_Fields):
    """Probabilities of a range."""

    low: float
    high: float
    examples: int
    confidence: float | None
    accuracy: float | None


class Calibrated(_Fields):
    """Label probabilities against the truth."""

    accuracy: FigureRecord
    ece: FigureRecord
    brier: FigureRecord
    bins: list[BinRow]
    disagreeing: list[str]


class System(_Fields):
    """One system's judgement."""

    name: Literal["majority", "tfidf", "base", "tuned"]
    examples: int
    figures: dict[str, FigureRecord]
    details: dict[str, FigureRecord]
    classes: list[ClassRow]
    confusion: ConfusionTable | None
    unreadable: int
    health: Counts | None
    calibration: Calibrated | None


class Forgotten(_Fields):
    """What was forgotten."""

    prompts: int
    kept: FigureRecord
    divergence: float | None
    base_perplexity: float | None
    perplexity: float | None
    by_kind: dict[str, float | None]
    base_health: Counts
    health: Counts


class Preferred(_Fields):
    """Which answers another model prefers."""

    judge: str
    prompt: str
    pairs: int
    paired: PairedRecord
    rate: FigureRecord
    same: int
    inconsistent: int
    first: int
    second: int
    unread: int


class Cache(_Fields):
    """What was trained from hidden states."""

    used: bool
    below: int
    streamed: int


class TuningNotes(_Fields):
    """How the training ended."""

    stopped: str
    best_step: int
    micro_batch_size: int
    cache: Cache


class JudgedRecord(_Fields):
    """judgement.json"""

    task: Task
    test: list[System]
    validation: list[System]
    tuned_against_base: PairedRecord
    gains: dict[str, FigureRecord]
    forgetting: Forgotten | None
    preference: Preferred | None = None
    tuning: TuningNotes

    @field_validator("test")
    @classmethod
    def _with_the_tuned_model(cls, test: list[System]) -> list[System]:
        if "tuned" not in [system.name for system in test]:
            raise ValueError("the tuned model is not among the systems")
        if len({tuple(system.figures) for system in test}) > 1 or len(test[0].figures) != 2:
            raise ValueError("every system has the same two figures")
        return test


class Words(_Fields):
    """How examples are put to the model."""

    model_config = ConfigDict(strict=True, extra="forbid")

    system: str
    question: str
    labels: dict[str, str] = {}


class Parts(_Fields):
    """The ids of each part."""

    train: list[str]
    validation: list[str]
    test: list[str]


class Data(_Fields):
    """data.json"""

    fingerprint: str
    format: str
    task: Task
    labels: list[str]
    wording: Words
    split: Parts


class Environment(_Fields):
    """environment.json"""

    started: str
    seconds: dict[str, float]
    packages: dict[str, str | None]
    code: str | None = None
    tokens: dict[str, int] = {}


class JudgedEnvironment(Environment):
    """environment.json of a run that came to its verdict."""

    dtype: str
    device: str


class FindingRow(_Fields):
    """One finding."""

    code: str
    severity: Literal["error", "warning", "note"]
    rows: list[str]
    message: str
    fix: str


class Proof(_Fields):
    """freeze_proof.json"""

    frozen: dict[str, list[str]]
    moved: list[str]


class Step(_Fields):
    """What to try next."""

    arguments: str
    why: str


class VerdictRecord(_Fields):
    """verdict.json"""

    name: str
    summary: str
    remarks: list[str]
    next_steps: list[Step]
    doubt: str


class IdentityRecord(_Fields):
    """identity.json"""

    settings: dict[str, Any] = {}
    weights: str | None = None
    config: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    tuned: str | None = None


class Fingerprinted(_Fields):
    """augmentation.json"""

    fingerprint: str


class Pick(_Fields):
    """What was taken of a model's guesses."""

    taken: int
    by_label: dict[str, int]
    left: dict[str, int]
    real: FigureRecord | None


class Trusted(_Fields):
    """From where up guesses are taken."""

    temperature: float | None
    threshold: float | None
    above: int
    precision: FigureRecord | None


class Seed(_Fields):
    """One seed of a round."""

    seed: int
    trust: Trusted
    folds: list[Pick]
    before: float
    after: float
    longer: float | None = None


class RoundRecord(_Fields):
    """One round of self-training."""

    number: int
    reason: str
    seeds: list[Seed]


class PseudoLabelsRecord(_Fields):
    """pseudo_labels.json"""

    fingerprint: str
    file: str
    rows: int
    left: dict[str, int]
    looked_at: int
    target: float
    rounds: list[RoundRecord]
    chosen: Pick | None
    trust: Trusted | None
    kept: int

    @field_validator("kept")
    @classmethod
    def _with_what_is_kept(cls, kept: int, known: Any) -> int:
        if kept and not (known.data.get("chosen") and known.data.get("trust")):
            raise ValueError("nothing is said of the pseudo-labels that are kept")
        return kept


class DecodingRecord(_Fields):
    """decoding.json"""

    chosen: dict[str, Any]
    reason: str


class AblationRecord(_Fields):
    """ablation.json"""

    out_of_fold: FigureRecord | None
    rungs: list[dict[str, Any]]


class AnswerRow(_Fields):
    """An example of predictions.parquet or validation.parquet."""

    id: str
    prompt: str
    reference: str
    base_prediction: str
    base_output: str
    base_right: bool
    base_score: float
    tuned_prediction: str
    tuned_output: str
    tuned_right: bool
    tuned_score: float


class LogLine(_Fields):
    """A line of metrics.jsonl: numbers, of which null is one that is not finite."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, float | None]

    step: int


class TrialCost(_Fields):
    """What a tuning took."""

    model_config = ConfigDict(strict=True, extra="forbid")

    seconds: float
    trained: int
    generated: int


class TrialUnit(_Fields):
    """What a trial was tried on."""

    model_config = ConfigDict(strict=True, extra="forbid")

    fold: int
    seed: int


class TrialRecord(_Fields):
    """A file of trials/"""

    unit: TrialUnit
    scores: dict[str, float]
    predictions: dict[str, str]
    training: dict[str, float]
    losses: list[float | None]
    validation_losses: list[float | None]
    cost: TrialCost
    overhead: float


class GuessRecord(_Fields):
    """What a model said of one text."""

    answer: str
    logits: list[float | None]
    place: int
    agrees: bool


class StageRecord(_Fields):
    """A file of pseudo-labels/"""

    key: str
    scores: dict[str, float]
    predictions: dict[str, str]
    held_out: dict[str, GuessRecord]
    unlabeled: dict[str, GuessRecord]
    added: int
    steps: int
    cost: TrialCost


Shape = TypeAdapter[Any]


def shape(kind: Any) -> Shape:
    """What `problem` holds a record against."""
    return TypeAdapter(kind)


# By the names of the files.
SHAPES: Mapping[str, Shape] = {
    "judgement.json": shape(JudgedRecord),
    "data.json": shape(Data),
    "environment.json": shape(Environment),
    "findings.json": shape(list[FindingRow]),
    "freeze_proof.json": shape(Proof),
    "verdict.json": shape(VerdictRecord),
    "augmentation.json": shape(Fingerprinted),
    "pseudo_labels.json": shape(PseudoLabelsRecord),
    "decoding.json": shape(DecodingRecord),
    "folds.json": shape(list[list[str]]),
    "ablation.json": shape(AblationRecord),
    "base.json": shape(dict[str, float]),
    "identity.json": shape(IdentityRecord),
}
JUDGED_ENVIRONMENT = shape(JudgedEnvironment)
ANSWERS, LOG_LINE = shape(list[AnswerRow]), shape(LogLine)
TRIAL, STAGE = shape(TrialRecord), shape(StageRecord)


# In the words of JSON, where pydantic's are Python's.
SAID = {
    "missing": "is missing", "model_type": "must be an object", "dict_type": "must be an object",
    "list_type": "must be a list", "string_type": "must be a text", "int_type": "must be a number",
    "float_type": "must be a number", "bool_type": "must be true or false",
}  # fmt: skip


def problem(content: Any, wanted: Shape) -> str:
    """What is wrong with a record, by its place in it; nothing where all is as it should be."""
    try:
        wanted.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = SAID.get(first["type"], first["msg"].removeprefix("Value error, "))
        return f"{place}: {said}" if place else said
    return ""
