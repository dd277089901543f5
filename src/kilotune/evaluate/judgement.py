"""One system's answers on one set of examples, and what they amount to."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import Task
from kilotune.evaluate.evidence import Figure, macro_f1_figure, mean_figure, wilson
from kilotune.evaluate.health import Health
from kilotune.evaluate.metrics import ClassFigures, macro_f1, per_class
from kilotune.evaluate.tasks import TASKS, UNREADABLE


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures of one system, by name: the share of right answers, then the graded one.

    `unreadable` counts answers that named no label or held no JSON: wrong, and apart. `classes`
    is empty but for closed labels. `health` is how the answers came out as texts; None for what
    does not generate.
    """

    name: str
    examples: int
    figures: dict[str, Figure]
    classes: tuple[ClassFigures, ...]
    unreadable: int
    health: Health | None

    @property
    def stopped(self) -> float | None:
        """The share of answers that ended by themselves."""
        return None if self.health is None else self.health.share("stopped")


def quick_metrics(
    task: Task, references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """The task's two figures without intervals, for the validation of every epoch."""
    metrics = TASKS[task]
    right = [metrics.right(p, r) for p, r in zip(predictions, references, strict=True)]
    if metrics.score is None:
        graded = macro_f1(references, predictions, labels)
    else:
        graded = _mean(scores(task, references, predictions))
    return {metrics.exact: _mean(right), metrics.graded: graded}


def judge_system(
    name: str,
    task: Task,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    *,
    health: Health | None = None,
    bootstrap_samples: int,
    seed: int,
) -> Judgement:
    """Figures with intervals of `predictions` against `references`; `labels` are the classes."""
    metrics = TASKS[task]
    right = sum(metrics.right(p, r) for p, r in zip(predictions, references, strict=True))
    if metrics.score is None:
        graded = macro_f1_figure(
            references, predictions, labels, samples=bootstrap_samples, seed=seed
        )
        classes = tuple(per_class(references, predictions, labels))
    else:
        graded = mean_figure(
            scores(task, references, predictions), samples=bootstrap_samples, seed=seed
        )
        classes = ()
    return Judgement(
        name=name,
        examples=len(references),
        figures={metrics.exact: wilson(right, len(references)), metrics.graded: graded},
        classes=classes,
        unreadable=sum(prediction == UNREADABLE for prediction in predictions),
        health=health,
    )


def scores(task: Task, references: Sequence[str], predictions: Sequence[str]) -> list[float]:
    """How well each prediction agrees with its reference, in [0, 1]; 0 or 1 for labels."""
    score = TASKS[task].score or TASKS[task].right
    return [float(score(p, r)) for p, r in zip(predictions, references, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
