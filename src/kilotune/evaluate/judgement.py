"""One system's answers on one set of examples, and what they amount to."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.evaluate.evidence import Figure, accuracy_figure, macro_f1_figure
from kilotune.evaluate.metrics import NO_LABEL, ClassFigures, accuracy, macro_f1, per_class


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures of one system. `no_label` counts answers that named no label: wrong, and apart.

    `stopped` is the share of answers that ended by themselves; None for what does not generate.
    """

    name: str
    examples: int
    accuracy: Figure
    macro_f1: Figure
    classes: tuple[ClassFigures, ...]
    no_label: int
    stopped: float | None


def quick_metrics(
    references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> dict[str, float]:
    """Accuracy and macro-F1 without intervals, for the validation of every epoch."""
    return {
        "accuracy": accuracy(references, predictions),
        "macro_f1": macro_f1(references, predictions, labels),
    }


def judge_system(
    name: str,
    references: Sequence[str],
    predictions: Sequence[str],
    labels: Sequence[str],
    *,
    stopped: float | None = None,
    bootstrap_samples: int,
    seed: int,
) -> Judgement:
    """Figures with intervals of `predictions` against `references`, over the classes `labels`."""
    return Judgement(
        name=name,
        examples=len(references),
        accuracy=accuracy_figure(references, predictions),
        macro_f1=macro_f1_figure(
            references, predictions, labels, samples=bootstrap_samples, seed=seed
        ),
        classes=tuple(per_class(references, predictions, labels)),
        no_label=sum(prediction == NO_LABEL for prediction in predictions),
        stopped=stopped,
    )
