"""One system's answers on one set of examples, and what they amount to."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import Example, Task, references
from kilotune.evaluation.calibration import Calibration
from kilotune.evaluation.evidence import (
    Estimate,
    Resampling,
    f1_figure,
    mean_figure,
    metric_figure,
    share,
)
from kilotune.evaluation.health import Health
from kilotune.evaluation.metrics import (
    ClassFigures,
    Confusion,
    confusion,
    macro_f1_scores,
    per_class,
)
from kilotune.evaluation.overlap import bleu
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE, own_scores


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures of one system, by name: the share of right answers, then the graded one.

    `details` are further figures, the user's own metric (by its import path) last of them.
    `unreadable` counts answers that named no label or held no JSON: wrong, and apart. `classes`
    and `confusion` are of closed labels alone; `calibration` is of label probabilities, where they
    were asked for. `health` is how the answers came out as texts; None for what does not generate.
    """

    name: str
    examples: int
    figures: dict[str, Estimate]
    details: dict[str, Estimate]
    classes: tuple[ClassFigures, ...]
    confusion: Confusion | None
    unreadable: int
    health: Health | None
    calibration: Calibration | None = None

    @property
    def stopped(self) -> float | None:
        """The share of answers that ended by themselves."""
        return None if self.health is None else self.health.share("stopped")


def quick_metrics(
    task: Task, references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """The task's two figures without intervals, for the validation of every epoch."""
    metrics = TASKS[task]
    return {
        name: _mean(example_scores(task, name, references, predictions, labels))
        for name in (metrics.exact, metrics.graded)
    }


def example_scores(
    task: Task,
    metric: str,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
) -> list[float]:
    """A score for every example, whose mean is `metric`, one of the task's two.

    What early stopping and adoption compare example by example.
    """
    metrics = TASKS[task]
    if metric == metrics.exact:
        pairs = zip(predictions, references, strict=True)
        return [float(metrics.right(p, r)) for p, r in pairs]
    if metrics.score is None:
        return macro_f1_scores(references, predictions, labels)
    return scores(task, references, predictions)


def judge_system(
    name: str,
    task: Task,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    *,
    health: Health | None = None,
    own: str | None = None,
    settings: Resampling,
) -> Judgement:
    """Figures with intervals of `predictions` against `references`; `labels` are the classes.

    Intervals are bootstrapped as `settings` say; `own` is the import path of the user's own metric.
    Raises KilotuneError where that fails.
    """
    metrics = TASKS[task]
    right = sum(metrics.right(p, r) for p, r in zip(predictions, references, strict=True))
    closed = metrics.score is None
    if closed:
        graded = f1_figure(references, predictions, labels, **settings)
    else:
        graded = mean_figure(scores(task, references, predictions), **settings)
    return Judgement(
        name=name,
        examples=len(references),
        figures={metrics.exact: share(right, len(references)), metrics.graded: graded},
        details=_details(task, references, predictions, labels, own, settings),
        classes=tuple(per_class(references, predictions, labels)) if closed else (),
        confusion=confusion(references, predictions, labels) if closed else None,
        unreadable=sum(prediction == UNREADABLE for prediction in predictions),
        health=health,
    )


def _details(
    task: Task,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    own: str | None,
    settings: Resampling,
) -> dict[str, Estimate]:
    """The task's further figures, and the user's own."""
    found: dict[str, Estimate] = {}
    if task == "classify":
        found["weighted_f1"] = f1_figure(
            references, predictions, labels, average="weighted", **settings
        )
    for name, score in TASKS[task].also.items():
        pairs = zip(predictions, references, strict=True)
        found[name] = mean_figure([score(p, r) for p, r in pairs], **settings)
    if task in ("generate", "chat"):
        found["bleu"] = metric_figure(bleu(predictions, references), len(references), **settings)
    if own:
        found[own] = mean_figure(own_scores(own, references, predictions), **settings)
    return found


def scores(task: Task, references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """How well each prediction agrees with its reference, in [0, 1]; 0 or 1 for labels."""
    score = TASKS[task].score or TASKS[task].right
    return [float(score(p, r)) for p, r in zip(predictions, references, strict=True)]


def scores_by_id(
    task: Task, examples: Sequence[Example], predictions: Sequence[str]
) -> dict[str, float]:
    """How well each prediction agrees with the true answer, by the id of its example."""
    values = scores(task, references(examples), predictions)
    return {example.id: value for example, value in zip(examples, values, strict=True)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
