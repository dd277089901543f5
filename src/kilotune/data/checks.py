"""What is wrong with labelled data, found before anything is trained."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.data.example import Example, comparable, plain_label
from kilotune.errors import KilotuneError, some

Severity = Literal["error", "warning", "note"]

# Fewer cannot be split into three parts that each say anything.
MINIMUM_EXAMPLES = 10
# Below this, a class has too few examples to be learnt or measured.
RARE_CLASS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `rows` are example ids; an error stops a run, the rest is said."""

    code: str
    severity: Severity
    rows: tuple[str, ...]
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}"


def check_examples(examples: Sequence[Example]) -> list[Finding]:
    """Every check that needs the examples alone, errors first."""
    findings = [finding for check in CHECKS for finding in check(examples)]
    order: tuple[Severity, ...] = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


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


def check_unseen_labels(
    train: Iterable[Example], given: Iterable[Example], name: str
) -> list[Finding]:
    """Labels of `given` (called `name`) that no training example has."""
    known = {example.label for example in train}
    unseen = [example for example in given if example.label and example.label not in known]
    if not unseen:
        return []
    labels = some(sorted({f"'{example.label}'" for example in unseen}))
    message = f"labels in the {name} file that the training file lacks: {labels}"
    rows = tuple(example.id for example in unseen)
    fix = "Spell labels alike in both files, or add training examples of them"
    return [Finding("unseen-label", "error", rows, message, fix)]


def stop_on_errors(findings: Iterable[Finding], where: str) -> None:
    """Raise one KilotuneError that holds every finding of severity error."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        what = "; ".join(finding.message for finding in errors)
        raise KilotuneError(what, where=where, fix=errors[0].fix)


def _empty_text(examples: Sequence[Example]) -> list[Finding]:
    rows = tuple(example.id for example in examples if not example.text)
    message = f"rows without text ({len(rows)}): {some(list(rows))}"
    fix = "Fill in the text or remove the rows"
    return [Finding("empty-text", "error", rows, message, fix)] if rows else []


def _missing_label(examples: Sequence[Example]) -> list[Finding]:
    rows = tuple(example.id for example in examples if example.label is None)
    message = f"rows without a label ({len(rows)}): {some(list(rows))}"
    fix = "Label the rows or remove them"
    return [Finding("missing-label", "error", rows, message, fix)] if rows else []


def _too_few(examples: Sequence[Example]) -> list[Finding]:
    different = len({comparable(example.text) for example in examples})
    if different >= MINIMUM_EXAMPLES:
        return []
    message = f"only {different} different texts"
    fix = f"Label at least {MINIMUM_EXAMPLES}; 50 or more give a result worth trusting"
    return [Finding("too-few-examples", "error", (), message, fix)]


def _classes(examples: Sequence[Example]) -> list[Finding]:
    counts = Counter(example.label for example in examples if example.label)
    if len(counts) == 1:
        message = f"every example has the same label, '{next(iter(counts))}'"
        return [Finding("single-class", "error", (), message, "Add examples of another class")]
    if len(counts) > max(2, len(examples) // 2):
        message = f"{len(counts)} different labels in {len(examples)} examples: not closed labels"
        fix = "Check that --label names the right column"
        return [Finding("too-many-classes", "error", (), message, fix)]
    rare = {label for label, count in counts.items() if count < RARE_CLASS}
    if not rare:
        return []
    rows = tuple(example.id for example in examples if example.label in rare)
    named = some([f"'{label}' ({counts[label]})" for label in sorted(rare)])
    message = f"classes with fewer than {RARE_CLASS} examples: {named}"
    return [Finding("rare-class", "warning", rows, message, "Label more of them, or merge classes")]


def _label_variants(examples: Sequence[Example]) -> list[Finding]:
    spellings: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        if example.label:
            spellings[plain_label(example.label)].add(example.label)
    variants = [forms for forms in spellings.values() if len(forms) > 1]
    if not variants:
        return []
    labels = set.union(*variants)
    rows = tuple(example.id for example in examples if example.label in labels)
    named = some([" and ".join(repr(form) for form in sorted(forms)) for forms in variants])
    message = f"labels that differ only in case, width, spaces or punctuation: {named}"
    fix = "Spell each label in one way; generated answers cannot tell them apart"
    return [Finding("label-variants", "error", rows, message, fix)]


def _repeats(examples: Sequence[Example]) -> list[Finding]:
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


CHECKS = (_empty_text, _missing_label, _too_few, _classes, _label_variants, _repeats)
