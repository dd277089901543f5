"""Closed labels: whether each is there, spelt in one way, and has enough examples."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from kilotune.data.example import Example, plain_label
from kilotune.data.finding import Finding, about_rows, finding
from kilotune.messages.sentences import phrase

# Below this, a class has too few examples to be learnt or measured.
RARE_CLASS = 5
# A label of so many letters may be misspelt, by two of them from so many on, where the right one is
# so many times as common.
SHORTEST_MISSPELT, LONG_LABEL, MUCH_COMMONER = 5, 9, 5
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
    return about_rows("missing-label", rows)


def missing_value(examples: Sequence[Example]) -> list[Finding]:
    """Labels that are what programs write where there is none."""
    rows = [e.id for e in examples if e.label and e.label.strip().casefold() in MISSING_VALUES]
    return about_rows("missing-value", rows)


def classes(examples: Sequence[Example]) -> list[Finding]:
    """One class, a class per example, classes too rare to learn, and uneven classes."""
    counts = Counter(example.label for example in examples if example.label)
    if len(counts) == 1:
        return [finding("single-class", label=next(iter(counts)))]
    if len(counts) > max(2, len(examples) // 2):
        return [finding("too-many-classes", labels=len(counts), examples=len(examples))]
    return [*_rare(examples, counts), *_uneven(counts)]


def _rare(examples: Sequence[Example], counts: Counter[str]) -> list[Finding]:
    misspelt = _misspelt(counts)
    rare = {label for label, n in counts.items() if n < RARE_CLASS and label not in misspelt}
    if not rare:
        return []
    rows = [example.id for example in examples if example.label in rare]
    classes = [phrase("class", label=label, examples=counts[label]) for label in sorted(rare)]
    return [finding("rare-class", rows, least=RARE_CLASS, classes=classes)]


def _uneven(counts: Counter[str]) -> list[Finding]:
    enough = {label: count for label, count in counts.items() if count >= RARE_CLASS}
    if len(enough) < 2:
        return []
    most = min(enough, key=lambda label: (-enough[label], label))
    least = min(enough, key=lambda label: (enough[label], label))
    ratio = enough[most] / enough[least]
    if ratio < UNEVEN:
        return []
    return [
        finding(
            "class-imbalance",
            severity="warning" if ratio >= VERY_UNEVEN else "note",
            most=most,
            least=least,
            ratio=ratio,
            most_examples=enough[most],
            least_examples=enough[least],
        )
    ]


def misspelt_labels(examples: Sequence[Example]) -> list[Finding]:
    """Rare labels that are a letter or two away from one that is far commoner."""
    found = _misspelt(Counter(example.label for example in examples if example.label))
    rows = [example.id for example in examples if example.label in found]
    spellings = [phrase("spelling", given=given, usual=usual) for given, usual in found.items()]
    return about_rows("misspelt-label", rows, spellings=spellings)


def _misspelt(counts: Counter[str]) -> dict[str, str]:
    """Each rare label that is probably another one misspelt, and that one."""
    usual = commonest_spellings_of(counts)
    found = {}
    for rare, count in counts.items():
        if count >= RARE_CLASS or len(rare) < SHORTEST_MISSPELT:
            continue
        near = [
            common
            for common, times in counts.items()
            if times >= MUCH_COMMONER * count
            and usual[common] != usual[rare]
            and _is_near(rare, common)
        ]
        if near:
            found[rare] = max(near, key=lambda label: counts[label])
    return found


def _is_near(one: str, other: str) -> bool:
    """Whether one word is the other but for a letter, or two of a long one.

    Not where it differs in a number, nor where one is the other with something before it, as
    unrelated is with related.
    """
    one, other = one.casefold(), other.casefold()
    digits = [re.sub(r"\D", "", word) for word in (one, other)]
    if digits[0] != digits[1] or one.endswith(other) or other.endswith(one):
        return False
    allowed = 2 if min(len(one), len(other)) >= LONG_LABEL else 1
    return abs(len(one) - len(other)) <= allowed and _edits(one, other) <= allowed


def _edits(one: str, other: str) -> int:
    """How many letters must be put in, taken out, exchanged or swapped (Damerau 1964)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before, last = last, row
    return last[-1]


def label_variants(examples: Sequence[Example]) -> list[Finding]:
    """Several spellings of one label."""
    usual = commonest_spellings(examples)
    unusual = [e for e in examples if e.label and e.label != usual[e.label]]
    if not unusual:
        return []
    pairs = dict.fromkeys((e.label, usual[e.label]) for e in unusual if e.label)
    spellings = [phrase("spelling", given=given, usual=usual) for given, usual in pairs]
    return about_rows("label-variants", [example.id for example in unusual], spellings=spellings)


def commonest_spellings(examples: Iterable[Example]) -> dict[str, str]:
    """For each label the commonest of its spellings, the first in the alphabet of several."""
    return commonest_spellings_of(Counter(e.label for e in examples if e.label))


def commonest_spellings_of(counts: Counter[str]) -> dict[str, str]:
    """As `commonest_spellings`, of labels that are counted already."""
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
    labels = sorted({f"'{example.label}'" for example in unseen})
    return about_rows("unseen-label", [e.id for e in unseen], part=name, labels=labels)


def check_split(parts: Mapping[str, Sequence[Example]]) -> list[Finding]:
    """Classes without an example in one of the `parts`, by the parts' names."""
    labels = {name: {e.label for e in part if e.label} for name, part in parts.items()}
    every = set.union(*labels.values())
    absent = [
        phrase("class-in-part", label=label, part=name)
        for name, present in labels.items()
        for label in sorted(every - present)
    ]
    if not absent:
        return []
    return [finding("empty-class-in-part", classes=len(absent), absent=absent)]
