"""What is not taken of what operations made, and why: no leaks, no copies, nothing out of kind."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from kilotune.augmentation.segments import language_of
from kilotune.data.checks import check_rows
from kilotune.data.checks.duplicates import PromptKey, asked, check_leakage, components
from kilotune.data.example import Example
from kilotune.data.scripts import script
from kilotune.recipe.schema import FilterSettings

# The probability of each label for each example, by any model.
LabelScores = Callable[[Sequence[Example]], Sequence[Mapping[str, float]]]
# How near each pair of texts is in meaning, from -1 to 1.
Nearness = Callable[[Sequence[tuple[str, str]]], Sequence[float]]

Test = Callable[[Sequence[Example]], set[str]]


@dataclass(frozen=True, slots=True)
class Judges:
    """Models that filters may ask; each that is None takes nothing."""

    label_scores: LabelScores | None = None
    nearness: Nearness | None = None


@dataclass(frozen=True, slots=True)
class Filtered:
    """What was kept, in its order, and the ids of what was taken, by reason."""

    kept: tuple[Example, ...]
    taken: Mapping[str, tuple[str, ...]]


def filtered(
    made: Sequence[Example],
    train: Sequence[Example],
    held_out: Sequence[Example],
    settings: FilterSettings,
    judges: Judges,
) -> Filtered:
    """What of `made` may join `train`, never anything that stands, or nearly, in `held_out`.

    Reasons in this order: `broken` (what `kilotune check` calls an error in a row), `held-out`,
    `repeat` (the same question as another, whatever its answer), `near` (nearly another example,
    or with `near_parent` off its own parent), `length`, `language`, `meaning`, `label`.
    """
    parents = {example.id: example for example in train}
    questions = {example.id: asked(example, system=False) for example in (*train, *made)}
    tests: dict[str, Test] = {
        "broken": _broken,
        "held-out": lambda left: _leaking(left, held_out),
        "repeat": lambda left: _repeated(left, train, questions),
        "near": lambda left: _near(left, train, questions, settings.near_parent),
        "length": lambda left: _misfits(left, parents, settings),
        "language": lambda left: _foreign(left, parents) if settings.language else set(),
        "meaning": lambda left: _far(left, parents, settings, judges),
        "label": lambda left: _mislabelled(left, settings, judges),
    }
    left: Sequence[Example] = made
    taken: dict[str, tuple[str, ...]] = {}
    for reason, test in tests.items():
        out = test(left) if left else set()
        taken[reason] = tuple(example.id for example in left if example.id in out)
        left = [example for example in left if example.id not in out]
    return Filtered(tuple(left), {reason: ids for reason, ids in taken.items() if ids})


def _broken(made: Sequence[Example]) -> set[str]:
    labelled = any(example.label is not None for example in made)
    found = check_rows(made, "classify" if labelled else "generate")
    return {row for finding in found if finding.severity == "error" for row in finding.rows}


def _leaking(made: Sequence[Example], held_out: Sequence[Example]) -> set[str]:
    # What a group shares is not judged here: groups lie on one side of the split.
    bare = [replace(example, group=None) for example in made]
    found = check_leakage(held_out, bare, "derived", "held-out") if held_out else []
    return {row for finding in found for row in finding.rows}


def _repeated(
    made: Sequence[Example], train: Iterable[Example], questions: Mapping[str, PromptKey]
) -> set[str]:
    def key(example: Example) -> tuple[PromptKey, tuple[str, ...]]:
        system = tuple(m.text for m in example.prompt if m.role == "system")
        return questions[example.id], system

    seen = {key(example) for example in train}
    out = set()
    for example in made:
        question = key(example)
        if question in seen:
            out.add(example.id)
        seen.add(question)
    return out


def _near(
    made: Sequence[Example],
    train: Sequence[Example],
    questions: Mapping[str, PromptKey],
    near_parent: bool,
) -> set[str]:
    """What is nearly a training example that its parent was not already nearly."""
    every = [replace(example, group=None) for example in (*train, *made)]
    said = [questions[example.id] for example in every]
    before = components(every[: len(train)], said[: len(train)])
    after = components(every, said)
    clusters: dict[int, set[int]] = defaultdict(set)
    for old, new in zip(before, after, strict=False):  # of the training examples, which come first
        clusters[new].add(old)
    own = {example.id: {old} for example, old in zip(train, before, strict=True)}
    return {
        example.id
        for example, new in zip(made, after[len(train) :], strict=True)
        if not clusters[new] <= (own[example.origin.parent] if near_parent else set())
    }


def _misfits(
    made: Iterable[Example], parents: Mapping[str, Example], settings: FilterSettings
) -> set[str]:
    out = set()
    for example in made:
        parent = parents[example.origin.parent]
        # Operations on whole dialogues change how long they are, and mean to.
        if len(example.messages) == len(parent.messages) and parent.text:
            ratio = len(example.text) / len(parent.text)
            if not settings.shortest <= ratio <= settings.longest:
                out.add(example.id)
    return out


def _foreign(made: Iterable[Example], parents: Mapping[str, Example]) -> set[str]:
    out = set()
    for example in made:
        text, before = example.text, parents[example.origin.parent].text
        writing = script(before)
        if writing is None:
            continue
        if script(text) != writing:
            out.add(example.id)
        elif writing == "Latin":  # only there do languages share it
            languages = language_of(text), language_of(before)
            if None not in languages and languages[0] != languages[1]:
                out.add(example.id)
    return out


def _far(
    made: Sequence[Example],
    parents: Mapping[str, Example],
    settings: FilterSettings,
    judges: Judges,
) -> set[str]:
    if judges.nearness is None:
        return set()
    pairs = [(example.text, parents[example.origin.parent].text) for example in made]
    near = judges.nearness(pairs)
    return {e.id for e, score in zip(made, near, strict=True) if score < settings.meaning}


def _mislabelled(made: Sequence[Example], settings: FilterSettings, judges: Judges) -> set[str]:
    labelled = [example for example in made if example.label is not None]
    if judges.label_scores is None or settings.label_score is None or not labelled:
        return set()
    scores = judges.label_scores(labelled)
    return {
        example.id
        for example, by_label in zip(labelled, scores, strict=True)
        if by_label.get(example.label or "", 0.0) < settings.label_score
    }
