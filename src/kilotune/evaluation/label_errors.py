"""Which labels are probably wrong, by confident learning.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR
2021), section 3. The probabilities must come from a model that has not seen the example.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows, finding
from kilotune.evaluation.evidence import Figure, difference, wilson
from kilotune.messages.sentences import Phrase, phrase

# Predictions are held against the labels from this kappa up (Cohen 1960: agreement beyond chance,
# as a share of what there could be). The truth itself has 0.4 where three in ten labels of two even
# classes are wrong; below it, most of what a model contradicts is its own mistake.
ENOUGH = 0.4
# A share in half of fewer examples says nothing.
ENOUGH_EXAMPLES = 12

Ranking = Literal["self_confidence", "normalized_margin"]


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """What confident learning says of K classes.

    `thresholds` (K): the mean probability of a class among the examples labelled so. `joint`
    (K, K): the estimated share of all examples that are labelled i and truly j. `suspicious`:
    the examples counted off the joint's diagonal, the most suspicious first, and `suggested`: the
    class that each of them was counted as.
    """

    thresholds: NDArray[np.float64]
    joint: NDArray[np.float64]
    suspicious: NDArray[np.int64]
    suggested: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Contradicted:
    """How often a model finds another label likelier than the given one.

    Among the half of the examples whose likeliest label it is `surest` of, and the `others`.
    """

    surest: Figure
    others: Figure

    @property
    def alike(self) -> bool:
        """Whether it is not surely seldomer where the model is surest.

        A label that is wrong by accident is so whatever the text: being sure does not help. Of
        hard examples, and of a model that has learnt little, the surest are mostly right.
        """
        return difference(self.others, self.surest).low <= 0


def contradicted(labels: ArrayLike, probabilities: ArrayLike) -> Contradicted | None:
    """How often `probabilities` (n, K) go against `labels` (n), class numbers.

    None for few, and where any is not finite: there the likeliest label is none.
    """
    likely = np.asarray(probabilities, dtype=np.float64)
    if len(likely) < ENOUGH_EXAMPLES or not np.isfinite(likely).all():
        return None
    against = likely.argmax(axis=1) != np.asarray(labels, dtype=np.int64)
    order = np.argsort(-likely.max(axis=1), kind="stable")
    halves = np.array_split(against[order], 2)
    return Contradicted(*(wilson(int(half.sum()), len(half)) for half in halves))


def label_errors(
    labels: ArrayLike, probabilities: ArrayLike, *, ranking: Ranking = "normalized_margin"
) -> LabelErrors:
    """Find labels that a confident model contradicts.

    `labels` (n): class numbers; `probabilities` (n, K), out of fold. An example is counted as of
    the likeliest class whose probability reaches that class's threshold; examples that reach none
    are not counted (section 3.1). The counts are scaled to the classes' sizes. Ranked by the
    probability of the given label, or by its margin to the likeliest other (section 3.2).
    """
    given = np.asarray(labels, dtype=np.int64)
    likely = np.asarray(probabilities, dtype=np.float64)
    thresholds = _thresholds(given, likely)
    confident = likely >= thresholds
    counted = np.where(confident, likely, -1.0).argmax(axis=1)
    any_confident = confident.any(axis=1)
    wrong = np.flatnonzero(any_confident & (counted != given))
    own = likely[np.arange(len(given)), given]
    trust = own if ranking == "self_confidence" else own - _best_other(given, likely)
    ranked = wrong[np.argsort(trust[wrong], kind="stable")]
    joint = _joint(given, given[any_confident], counted[any_confident], likely.shape[1])
    return LabelErrors(thresholds, joint, ranked, counted[ranked])


def _thresholds(given: NDArray[np.int64], likely: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each class's mean probability where it is the label; a class without labels is never it."""
    thresholds = np.full(likely.shape[1], np.inf)
    for number in np.unique(given):
        thresholds[number] = likely[given == number, number].mean()
    return thresholds


def _best_other(given: NDArray[np.int64], likely: NDArray[np.float64]) -> NDArray[np.float64]:
    others = likely.copy()
    others[np.arange(len(given)), given] = -np.inf
    best: NDArray[np.float64] = others.max(axis=1)
    return best


def _joint(
    given: NDArray[np.int64],
    labelled: NDArray[np.int64],
    counted: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    """The confident counts, each row scaled to how many examples have that label (equation 3)."""
    counts = confusion_matrix(labelled, counted, labels=np.arange(classes)).astype(np.float64)
    sizes = np.bincount(given, minlength=classes)
    # A class of which no example is confident is taken as labelled rightly.
    counts[counts.sum(axis=1) == 0] += np.eye(classes)[counts.sum(axis=1) == 0]
    joint: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True) * sizes[:, None]
    joint /= joint.sum()
    return joint


def suspicious_labels(
    examples: Sequence[Example], classes: Sequence[str], probabilities: ArrayLike
) -> list[Finding]:
    """The finding on labels that `probabilities` contradict, its rows in order of suspicion.

    Or that they are too poor to contradict anything. Every example is labelled with one of
    `classes`, whose order is that of the columns.
    """
    given = numbers(examples, classes)
    said = np.asarray(probabilities).argmax(axis=1)
    agreement = float((said == given).mean())
    commonest = float(np.bincount(given).max() / len(given))
    kappa = agreement_beyond_chance(given, said)
    if kappa < ENOUGH:
        return [
            finding(
                "labels-not-judged",
                agreement=agreement,
                commonest=commonest,
                kappa=kappa,
                needed=ENOUGH,
            )
        ]
    said_of = phrase("labels-agreed-with", agreement=agreement)
    return _suspects(examples, classes, label_errors(given, probabilities), said_of)


def agreement_beyond_chance(labels: ArrayLike, said: ArrayLike) -> float:
    """Cohen's kappa of two lists of class numbers: from ENOUGH up one can judge the other."""
    return float(cohen_kappa_score(labels, said))


def labels_doubted(
    examples: Sequence[Example], classes: Sequence[str], probabilities: ArrayLike
) -> list[Finding]:
    """The finding on labels that the tuned model itself contradicts, in order of suspicion.

    Most of `examples` were trained on: wrong labels that were learnt by heart are missed.
    """
    found = label_errors(numbers(examples, classes), probabilities)
    return _suspects(examples, classes, found, phrase("labels-trained-on"))


def numbers(examples: Sequence[Example], classes: Sequence[str]) -> list[int]:
    """The class numbers of the examples' labels."""
    places = {label: number for number, label in enumerate(classes)}
    return [places[str(example.label)] for example in examples]


def _suspects(
    examples: Sequence[Example], classes: Sequence[str], found: LabelErrors, by: Phrase
) -> list[Finding]:
    suspects = [examples[index] for index in found.suspicious]
    named = [
        phrase("label-or", row=one.id, label=one.label, other=classes[other])
        for one, other in zip(suspects, found.suggested, strict=True)
    ]
    return about_rows("suspicious-label", [one.id for one in suspects], by=by, named=named)
