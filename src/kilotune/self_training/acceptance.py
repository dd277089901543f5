"""Which guesses on unlabelled texts are taken as labels, and why the others are not."""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kilotune.data.checks.duplicates import check_leakage, first_of_each
from kilotune.data.example import Example, Message
from kilotune.data.normalise import without_answer
from kilotune.evaluation.confidence import Guess, Trust, confidence, probabilities
from kilotune.evaluation.evidence import Estimate, share

OPERATION = "pseudo-label"
# A soft label leaves out what is less likely than this.
LEAST_SHARE = 0.05

BELOW, DIFFERS, QUOTA = "below the threshold", "altered texts answered otherwise", "beyond quota"
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Taken:
    """One pseudo-label: the row's id, the answer, and its calibrated probability.

    `shares` are the probabilities of other answers too, where they are kept as a soft label.
    """

    id: str
    answer: str
    confidence: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AcceptedGuesses:
    """What was taken of a model's guesses, how many of each label, and why others were left."""

    taken: tuple[Taken, ...]
    by_label: Mapping[str, int]
    left: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much may be taken: `most` in all and, of closed labels, by their `shares`."""

    most: int
    shares: Mapping[str, float]

    def of(self, passing: int) -> dict[str, int]:
        """How many of each label where `passing` guesses could be taken (largest remainders)."""
        room = min(self.most, passing)
        counts = {label: int(part * room) for label, part in self.shares.items()}
        rest = sorted(counts, key=lambda label: counts[label] - self.shares[label] * room)
        for label in rest[: room - sum(counts.values())]:
            counts[label] += 1
        return counts


def quotas(train: Sequence[Example], most: int) -> Quotas:
    """`most` divided as the labels of `train` are; free answers have no shares."""
    counts = Counter(example.label for example in train if example.label is not None)
    total = sum(counts.values())
    return Quotas(most, {str(label): count / total for label, count in sorted(counts.items())})


def without_known(
    rows: Sequence[Example], known: Mapping[str, Sequence[Example]]
) -> tuple[list[Example], dict[str, int]]:
    """The rows that say something new, in their order, and how many do not, by reason.

    What stands, exactly or nearly, in one of the `known` parts is left out, what is of a group that
    they have, and of rows that repeat each other all but the first.
    """
    groups = {example.group for part in known.values() for example in part} - {None}
    bare = [replace(row, group=None) for row in rows if row.group not in groups]
    left = {"of a known group": len(rows) - len(bare)}
    for name, part in known.items():
        found = check_leakage([replace(e, group=None) for e in part], bare, "unlabelled")
        out = {row for finding in found for row in finding.rows}
        bare = [row for row in bare if row.id not in out]
        left[f"repeats {name}"] = len(out)
    kept = {row.id for row in first_of_each(bare)}
    left["repeats another row"] = len(bare) - len(kept)
    return [row for row in rows if row.id in kept], {why: n for why, n in left.items() if n}


def select(
    guesses: Mapping[str, Guess],
    labels: Sequence[str],
    trust: Trust,
    quota: Quotas,
    seed: int,
    *,
    soft: bool = False,
) -> AcceptedGuesses:
    """Take guesses that reach the threshold, drawn by `seed` within the quotas.

    Drawn, and not the surest first: what was measured is the precision of all above the threshold,
    and the surest teach least. With `soft` a label's other likely `labels` are kept beside it.
    """
    if trust.threshold is None:
        return AcceptedGuesses((), {}, {BELOW: len(guesses)})
    left: Counter[str] = Counter()
    passing: dict[str, list[Taken]] = defaultdict(list)
    for id, guess in sorted(guesses.items()):
        sure = confidence(guess, trust.temperature)
        why = _obstacle(guess, sure, trust.threshold)
        if why:
            left[why] += 1
            continue
        others = _shares(guess, labels, trust.temperature) if soft else {guess.answer: sure}
        passing[guess.answer if quota.shares else ""].append(Taken(id, guess.answer, sure, others))
    room = quota.of(sum(map(len, passing.values()))) if quota.shares else {"": quota.most}
    taken: list[Taken] = []
    for label, found in sorted(passing.items()):
        chosen = min(len(found), room.get(label, 0))
        left[QUOTA] += len(found) - chosen
        taken += random.Random(f"{seed}/{label}").sample(found, chosen)
    by_label = Counter(one.answer for one in taken) if quota.shares else {}
    ordered = sorted(taken, key=lambda one: one.id)
    return AcceptedGuesses(tuple(ordered), dict(sorted(by_label.items())), dict(+left))


def _obstacle(guess: Guess, sure: float, threshold: float) -> str:
    if not guess.answer:
        return NO_ANSWER
    if not guess.agrees:
        return DIFFERS
    return "" if sure >= threshold else BELOW


def _shares(guess: Guess, labels: Sequence[str], temperature: float) -> dict[str, float]:
    """The labels' probabilities, without the least likely, which the others make up for."""
    likely = zip(labels, probabilities(guess, temperature), strict=True)
    kept = {label: part for label, part in likely if part >= LEAST_SHARE}
    total = sum(kept.values())
    return {label: part / total for label, part in kept.items()}


def as_examples(
    selection: AcceptedGuesses, rows: Mapping[str, Example], weight: float, *, closed: bool
) -> tuple[Example, ...]:
    """The training examples that pseudo-labels make of their rows.

    One of weight times its confidence, or for a soft label one of each of its labels, weighted by
    its share: the sum of their losses is the cross-entropy to that distribution.
    """
    made = []
    for one in selection.taken:
        row = without_answer(rows[one.id])
        origin = replace(row.origin, operation=OPERATION, parent=row.id)
        for number, (answer, part) in enumerate(one.shares.items()):
            made.append(
                replace(
                    row,
                    id=f"{row.id}+{OPERATION}{number}",
                    messages=(*row.messages, Message("assistant", answer)),
                    origin=origin,
                    label=answer if closed else None,
                    group=None,
                    weight=weight * part,
                )
            )
    return tuple(made)


def real_precision(right: Mapping[str, bool]) -> Estimate | None:
    """The share of pseudo-labels that the file's own labels confirm; None where it has none."""
    return share(sum(right.values()), len(right)) if right else None
