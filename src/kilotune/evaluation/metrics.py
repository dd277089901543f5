"""From generated answers to labels, and from labels to F1."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import f1_score, precision_recall_fscore_support

from kilotune.data.example import plain_label

NO_LABEL = ""  # the prediction of an answer that names no label, or several


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: precision, recall and F1 in [0, 1], and how many examples have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each of `labels` (rows) was answered as each of them (columns).

    The last column counts answers that name none of them.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def parse_label(answer: str, labels: Sequence[str]) -> str:
    """The label that `answer` names, or NO_LABEL.

    An answer that *is* a label, after Unicode NFKC and without case and outer punctuation, names
    it; so does one in which exactly one label stands, as whole words. ("The answer is positive."
    names positive; "positive or negative" names none.)
    """
    plain = {plain_label(label): label for label in labels}
    said = plain_label(answer)
    if said and said in plain:
        return plain[said]
    found = {label for form, label in plain.items() if _stands_in(form, said)}
    # "not sports" beside "sports": the longer label contains the shorter one.
    longest = [
        a for a in found if not any(a != b and plain_label(a) in plain_label(b) for b in found)
    ]
    return longest[0] if len(longest) == 1 else NO_LABEL


def macro_f1(references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> float:
    """The mean F1 of the classes among `labels` that are met or named at least once.

    A class that neither occurs nor is predicted has no F1 and is left out, so that the figure of
    a small sample does not depend on classes it says nothing about.
    """
    with warnings.catch_warnings():
        # scikit-learn warns where no class is met, or a prediction is none of `labels`.
        warnings.simplefilter("ignore")
        score = f1_score(
            references, predictions, labels=list(labels), average="macro", zero_division=np.nan
        )
    return 0.0 if np.isnan(score) else float(score)


def macro_f1_scores(
    references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> list[float]:
    """A score for each example, whose mean is macro-F1 and whose spread is that of macro-F1.

    The value plus the example's influence on it (infinitesimal jackknife, Jaeckel 1972; Efron
    1982, chapter 6): what makes macro-F1 comparable example by example. Not in [0, 1]: an example
    of a rare class counts for more.
    """
    codes = {label: index for index, label in enumerate(labels)}
    truth = np.array([codes.get(label, -1) for label in references])
    found = np.array([codes.get(label, -1) for label in predictions])
    classes = np.arange(len(labels))
    met = (truth[:, None] == classes).astype(float) + (found[:, None] == classes)
    hits = (truth[:, None] == classes) & (found[:, None] == classes)
    counts = met.sum(axis=0)
    known = counts > 0
    if not known.any():
        return [0.0] * len(truth)
    f1 = 2 * hits.sum(axis=0)[known] / counts[known]
    influence = len(truth) * (2 * hits[:, known] - f1 * met[:, known]) / counts[known]
    scores: list[float] = (f1.mean() + influence.mean(axis=1)).tolist()
    return scores


def per_class(
    references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> list[ClassFigures]:
    """Precision, recall, F1 and support of each of `labels`."""
    columns = precision_recall_fscore_support(
        references, predictions, labels=labels, zero_division=0
    )
    return [
        ClassFigures(label, float(p), float(r), float(f), int(n))
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]


def confusion(
    references: Sequence[str], predictions: Sequence[str], labels: Sequence[str]
) -> Confusion:
    """The confusion matrix over `labels`, which all references are of."""
    counts = Counter(zip(references, predictions, strict=True))
    rows = [[counts[true, said] for said in labels] for true in labels]
    totals = Counter(references)
    return Confusion(
        tuple(labels),
        tuple((*row, totals[true] - sum(row)) for true, row in zip(labels, rows, strict=True)),
    )


def _stands_in(form: str, said: str) -> bool:
    # \w borders would find nothing around Chinese labels, which stand without spaces.
    border = r"(?<![a-z0-9_]){}(?![a-z0-9_])" if form.isascii() else "{}"
    return bool(form) and re.search(border.format(re.escape(form)), said) is not None
