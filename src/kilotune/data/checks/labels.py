"""Closed labels: whether each is there, spelt in one way, and has enough examples."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from kilotune.data.example import Example, plain_label
from kilotune.data.finding import Finding, about_rows
from kilotune.errors import some

# Below this, a class has too few examples to be learnt or measured.
RARE_CLASS = 5


def missing_label(examples: Sequence[Example]) -> list[Finding]:
    """Rows without a label."""
    rows = [example.id for example in examples if example.label is None]
    fix = "Label the rows or remove them"
    return about_rows("missing-label", "error", rows, "rows without a label", fix)


def classes(examples: Sequence[Example]) -> list[Finding]:
    """One class, a class per example, and classes too rare to learn."""
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


def label_variants(examples: Sequence[Example]) -> list[Finding]:
    """Spellings of a label that generated answers cannot tell apart."""
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
