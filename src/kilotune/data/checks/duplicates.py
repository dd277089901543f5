"""The same text twice: in one file, with another label, or on both sides of a split."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from kilotune.data.example import Example, comparable
from kilotune.data.finding import Finding
from kilotune.errors import some


def repeats(examples: Sequence[Example]) -> list[Finding]:
    """Rows that repeat another, and texts that have two labels."""
    by_text: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.text:
            by_text[comparable(example.text)].append(example)
    repeated = [group for group in by_text.values() if len(group) > 1]
    conflicting = [group for group in repeated if len({example.label for example in group}) > 1]
    duplicate = [group for group in repeated if len({example.label for example in group}) == 1]
    findings = []
    if conflicting:
        rows = tuple(example.id for group in conflicting for example in group)
        message = f"texts with different labels ({len(conflicting)}): rows {some(list(rows))}"
        fix = "Decide on one label for each text"
        findings.append(Finding("conflicting-labels", "warning", rows, message, fix))
    if duplicate:
        rows = tuple(example.id for group in duplicate for example in group[1:])
        message = f"rows that repeat another ({len(rows)}): {some(list(rows))}"
        fix = "Remove them; they are kept in one part of the split"
        findings.append(Finding("duplicate", "warning", rows, message, fix))
    return findings


def check_leakage(
    train: Iterable[Example], held_out: Iterable[Example], name: str
) -> list[Finding]:
    """Texts of `held_out` (called `name`) that also stand in `train`."""
    seen = {comparable(example.text) for example in train}
    rows = tuple(example.id for example in held_out if comparable(example.text) in seen)
    if not rows:
        return []
    message = f"{name} texts that stand in the training file too ({len(rows)}): {some(list(rows))}"
    fix = f"Remove them from one of the two, or the {name} figures flatter the model"
    return [Finding("leakage", "warning", rows, message, fix)]
