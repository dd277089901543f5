"""Training examples that may teach less than they cost: left out of the training part alone."""

from collections.abc import Callable, Collection, Sequence

from kilotune.data.checks.duplicates import asked, exact_repeats, repeats
from kilotune.data.example import Example

Rows = Callable[[Sequence[Example]], set[str]]


def duplicates(examples: Sequence[Example]) -> set[str]:
    """Rows that say what another says, to the letter; the first of them stays."""
    return {row for finding in exact_repeats(examples) for row in finding.rows}


def conflicts(examples: Sequence[Example]) -> set[str]:
    """All rows of a text that has several labels or answers: none of them is known to be right."""
    return _found(examples, "conflicting-labels")


def near_duplicates(examples: Sequence[Example]) -> set[str]:
    """Rows that ask what another asks, or nearly; the first of them stays."""
    seen, again = set(), set()
    for example in examples:
        question = asked(example)
        if question in seen:
            again.add(example.id)
        seen.add(question)
    return again | _found(examples, "near-duplicate")


# In the order in which they are done: what contradicts goes before a first of it could stay.
CLEANINGS: dict[str, Rows] = {
    "conflicts": conflicts,
    "duplicates": duplicates,
    "near_duplicates": near_duplicates,
}


def cleaned(
    examples: Sequence[Example], how: Collection[str]
) -> tuple[tuple[Example, ...], dict[str, int]]:
    """The examples that stay, and how many were left out by each of `how`, names of CLEANINGS."""
    left, out = tuple(examples), {}
    for name, rows in CLEANINGS.items():
        if name in how:
            gone = rows(left)
            out[name] = len(gone)
            left = tuple(example for example in left if example.id not in gone)
    return left, out


def _found(examples: Sequence[Example], code: str) -> set[str]:
    return {row for finding in repeats(examples) if finding.code == code for row in finding.rows}
