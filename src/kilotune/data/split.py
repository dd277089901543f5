"""Train, validation and held-out test: disjoint, stratified, what belongs together kept whole."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from kilotune.data.checks.duplicates import components
from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows
from kilotune.errors import KilotuneError

# A fold is taken as it comes up to this many times the size it should have.
LARGEST_FOLD = 1.5
# What must stay together is not said to be too large for a part below so many examples.
LARGE = 5


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts, and what splitting found. Nothing but `judge` opens `test`."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    findings: tuple[Finding, ...] = ()

    def ids(self) -> dict[str, list[str]]:
        """The example ids of each part."""
        return {name: [example.id for example in part] for name, part in self.named().items()}

    def named(self) -> dict[str, tuple[Example, ...]]:
        """Each part under its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split_examples(
    examples: Sequence[Example],
    *,
    validation: Sequence[Example] | None,
    test: Sequence[Example] | None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> Split:
    """Split `examples`; a part that is given is used as it is and nothing is taken for it.

    Fractions are of what is left at that point: test first, then validation, which may be 0. The
    same input and seed give the same parts.
    """
    rest = list(examples)
    if test is not None and validation is not None:
        return Split(tuple(rest), tuple(validation), tuple(test))
    whole = {e.id: number for e, number in zip(rest, components(rest), strict=True)}
    asked = [float(len(rest))]
    if test is None:
        asked.append(test_fraction * len(rest))
        rest, test = hold_out(rest, whole, test_fraction, seed)
    if validation is None and validation_fraction == 0:
        validation = ()
    if validation is None:
        asked.append(validation_fraction * len(rest))
        rest, validation = hold_out(rest, whole, validation_fraction, seed + 1)
    found = kept_together(examples, whole, min(asked))
    return Split(tuple(rest), tuple(validation), tuple(test), tuple(found))


def kept_together(
    examples: Sequence[Example], whole: Mapping[str, int], size: float
) -> list[Finding]:
    """What must stay together and is larger than a part of `size` examples could be."""
    limit = max(LARGEST_FOLD * size, LARGE)
    counts = Counter(whole.values())
    large = {number for number, count in counts.items() if count > limit}
    rows = [example.id for example in examples if whole[example.id] in large]
    sizes = sorted((counts[number] for number in large), reverse=True)
    return about_rows("kept-together", rows, sizes=sizes, size=size)


def hold_out(
    examples: Sequence[Example], whole: Mapping[str, int], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split off about `fraction`, stratified by label.

    Examples for whose ids `whole` has the same number stay together. Both parts keep the order of
    `examples`. Raises KilotuneError when everything must stay together.
    """
    groups = {whole[example.id] for example in examples}
    if len(groups) < 2:
        raise KilotuneError(
            "the examples are of one group or nearly repeat each other, so none can be held out",
            where=examples[0].origin.file if examples else "",
            fix="Give a validation and a test file, or another group column",
        )
    # One fold of k is a fraction 1/k; above a half, the other k - 1 folds are held out.
    wanted = round(1 / min(fraction, 1 - fraction))
    folds = min(wanted, len(groups))
    found = stratified_folds(examples, whole, folds, seed)
    # A large group can make a fold far larger than it should be: then the smallest that has any.
    limit = LARGEST_FOLD * len(examples) / folds
    filled = [fold for fold in found if len(fold[1])]
    fitting = (fold for fold in filled if len(fold[1]) <= limit)
    larger, smaller = next(fitting, None) or min(filled, key=lambda fold: len(fold[1]))
    held = set(smaller if fraction <= 0.5 else larger)
    kept = [example for index, example in enumerate(examples) if index not in held]
    return kept, [example for index, example in enumerate(examples) if index in held]


def stratified_folds(
    examples: Sequence[Example], whole: Mapping[str, int], folds: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """The places of `examples` in the larger and the smaller part of each of `folds` divisions.

    Stratified by label; examples for whose ids `whole` has the same number stay together.
    """
    groups = [whole[example.id] for example in examples]
    labels = stratifiable([example.label or "" for example in examples], folds)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # A class rarer than the folds is reported by the checks, with its rows.
        warnings.simplefilter("ignore", UserWarning)
        found = splitter.split(np.zeros(len(examples)), labels, groups)
        return [(larger.tolist(), smaller.tolist()) for larger, smaller in found]


def stratifiable(labels: Sequence[str], folds: int) -> Sequence[str]:
    """The labels, or one for all where none has an example for every fold to stratify by."""
    return labels if max(Counter(labels).values()) >= folds else [""] * len(labels)
