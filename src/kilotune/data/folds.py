"""Cross-validation: every example is answered once by a model that was not trained on it."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.checks.duplicates import components
from kilotune.data.example import Example
from kilotune.data.split import stratified_folds
from kilotune.errors import KilotuneError


@dataclass(frozen=True, slots=True)
class Fold:
    """One division of the examples: what is trained on, and what is then answered."""

    number: int
    train: tuple[Example, ...]
    validation: tuple[Example, ...]


def make_folds(examples: Sequence[Example], count: int, seed: int) -> tuple[Fold, ...]:
    """`count` folds, stratified by label; groups and nearly repeated texts stay together.

    The same for every trial: they follow from the examples and `seed` alone. Raises KilotuneError
    where what must stay together leaves a fold empty.
    """
    whole = dict(zip((e.id for e in examples), components(examples), strict=True))
    folds = []
    if count <= len(set(whole.values())):
        folds = stratified_folds(examples, whole, count, seed)
    if not folds or not all(smaller for _, smaller in folds):
        raise KilotuneError(
            f"{len(examples)} examples of {len(set(whole.values()))} groups that must stay "
            f"together cannot be cut into {count} folds",
            where=examples[0].origin.file if examples else "",
            fix="Ask for fewer folds, or give more examples",
        )
    return tuple(
        Fold(number, *(tuple(examples[i] for i in part) for part in parts))
        for number, parts in enumerate(folds)
    )
