"""Train, validation and held-out test: disjoint, stratified, duplicates kept together."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from kilotune.data.example import Example, comparable


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts. Nothing but `judge` opens `test`."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    def ids(self) -> dict[str, list[str]]:
        """The example ids of each part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: [example.id for example in part] for name, part in parts.items()}


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

    Fractions are of what is left at that point: test first, then validation. The same input and
    seed give the same parts.
    """
    rest = list(examples)
    if test is None:
        rest, test = hold_out(rest, test_fraction, seed)
    if validation is None:
        rest, validation = hold_out(rest, validation_fraction, seed + 1)
    return Split(tuple(rest), tuple(validation), tuple(test))


def hold_out(
    examples: Sequence[Example], fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split off about `fraction`, stratified by label; a group or repeated text stays whole.

    Both parts keep the order of `examples`.
    """
    labels = [example.label or "" for example in examples]
    groups = [example.group or comparable(example.text) for example in examples]
    # One fold of k is a fraction 1/k; above a half, the other k - 1 folds are held out.
    wanted = round(1 / min(fraction, 1 - fraction))
    # scikit-learn wants no more folds than there are groups, or members of the largest class.
    folds = max(2, min(wanted, len(set(groups)), max(Counter(labels).values())))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class rarer than the folds is reported by the checks, with its rows.
        warnings.simplefilter("ignore", UserWarning)
        larger, smaller = next(splitter.split(np.zeros(len(examples)), labels, groups))
    held = set((smaller if fraction <= 0.5 else larger).tolist())
    kept = [example for index, example in enumerate(examples) if index not in held]
    return kept, [example for index, example in enumerate(examples) if index in held]
