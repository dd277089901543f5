"""Closed labels: whether each is there, spelt in one way, and has enough examples."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kilotune.data.example import Example, plain_label
from kilotune.data.finding import Finding, Severity, about_rows
from kilotune.errors import some

# Below this, a class has too few examples to be learnt or measured.
RARE_CLASS = 5
# The commonest class against the rarest that is not RARE_CLASS: from here on accuracy says little
# and macro-F1 is the figure to watch; and from here on the rare class is easily never answered.
UNEVEN, VERY_UNEVEN = 10, 30
MISSING_VALUES = frozenset(
    ("nan", "<na>", "null", "n/a", "#n/a", "#ref!", "#value!", "#name?", "#null!", "nat")
)
# Between letters: of numbers, 1-2 is not 12.
JOINTS = re.compile(r"(?<=[^\W\d_])[\s_‐–-]+(?=[^\W\d_])")


def missing_label(examples: Sequence[Example]) -> list[Finding]:
    """Rows without a label."""
    rows = [e.id for e in examples if e.label is None or not e.label.strip()]
    fix = "Label the rows or remove them"
    return about_rows("missing-label", "error", rows, "rows without a label", fix)


def missing_value(examples: Sequence[Example]) -> list[Finding]:
    """Labels that are what programs write where there is none."""
    rows = [e.id for e in examples if e.label and e.label.strip().casefold() in MISSING_VALUES]
    what = "rows whose label is what programs write for a missing one (nan, null, N/A, #REF!)"
    fix = "Label the rows, leave them out, or give a class that is meant another name"
    return about_rows("missing-value", "warning", rows, what, fix)


def classes(examples: Sequence[Example]) -> list[Finding]:
    """One class, a class per example, classes too rare to learn, and uneven classes."""
    counts = Counter(example.label for example in examples if example.label)
    if len(counts) == 1:
        message = f"every example has the same label, '{next(iter(counts))}'"
        return [Finding("single-class", "error", (), message, "Add examples of another class")]
    if len(counts) > max(2, len(examples) // 2):
        message = f"{len(counts)} different labels in {len(examples)} examples: not closed labels"
        fix = "Check that --label names the right column, or say --task generate"
        return [Finding("too-many-classes", "error", (), message, fix)]
    return [*_rare(examples, counts), *_uneven(counts)]


def _rare(examples: Sequence[Example], counts: Counter[str]) -> list[Finding]:
    rare = {label for label, count in counts.items() if count < RARE_CLASS}
    if not rare:
        return []
    rows = tuple(example.id for example in examples if example.label in rare)
    named = some([f"'{label}' ({counts[label]})" for label in sorted(rare)])
    message = f"classes with fewer than {RARE_CLASS} examples: {named}"
    return [Finding("rare-class", "warning", rows, message, "Label more of them, or merge classes")]


def _uneven(counts: Counter[str]) -> list[Finding]:
    enough = {label: count for label, count in counts.items() if count >= RARE_CLASS}
    if len(enough) < 2:
        return []
    most = min(enough, key=lambda label: (-enough[label], label))
    least = min(enough, key=lambda label: (enough[label], label))
    ratio = enough[most] / enough[least]
    if ratio < UNEVEN:
        return []
    message = (
        f"'{most}' has {ratio:.0f} times as many examples as '{least}' "
        f"({enough[most]} and {enough[least]})"
    )
    fix = f"Label more of '{least}', and judge by macro-F1 rather than accuracy"
    severity: Severity = "warning" if ratio >= VERY_UNEVEN else "note"
    return [Finding("class-imbalance", severity, (), message, fix)]


def label_variants(examples: Sequence[Example]) -> list[Finding]:
    """Several spellings of one label."""
    usual = commonest_spellings(examples)
    unusual = [e for e in examples if e.label and e.label != usual[e.label]]
    if not unusual:
        return []
    rows = tuple(example.id for example in unusual)
    pairs = dict.fromkeys(f"{e.label!r} for {usual[e.label]!r}" for e in unusual if e.label)
    message = (
        "labels that differ only in case, width, spaces or punctuation: "
        f"{some(list(pairs))} ({len(rows)}: {some(list(rows))})"
    )
    fix = "Spell each label in one way; if they are different labels, name them more differently"
    return [Finding("label-variants", "error", rows, message, fix)]


def commonest_spellings(examples: Iterable[Example]) -> dict[str, str]:
    """For each label the commonest of its spellings, the first in the alphabet of several."""
    counts = Counter(example.label for example in examples if example.label)
    commonest: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        commonest.setdefault(_letters(label), label)
    return {label: commonest[_letters(label)] for label in counts}


def _letters(label: str) -> str:
    """A label as `plain_label` has it, without what joins its words: not-good, not_good."""
    return JOINTS.sub("", plain_label(label))


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


def check_split(parts: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Classes without an example in one of the `parts`, by the parts' names."""
    labels = {name: {e.label for e in part if e.label} for name, part in parts.items()}
    every = set.union(*labels.values())
    absent = [
        f"'{label}' in {name}"
        for name, present in labels.items()
        for label in sorted(every - present)
    ]
    if not absent:
        return []
    message = f"classes without an example in a part of the split ({len(absent)}): {some(absent)}"
    fix = "Label more of them: what a part lacks is not learnt, or not measured"
    return [Finding("empty-class-in-part", "warning", (), message, fix)]
