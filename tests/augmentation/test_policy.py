from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from kilotune.augmentation.filters import Judges
from kilotune.augmentation.policy import Augmented, augment
from kilotune.data.checks.duplicates import check_leakage
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.schema import AugmentSettings, FilterSettings
from tests.support.made import classified, sentences


def films(count: int, start: int = 0) -> list[Example]:
    """Labelled sentences of which every fourth is good."""
    lines = sentences(start + count)[start:]
    return classified(*((line, "good" if i % 4 == 0 else "bad") for i, line in enumerate(lines)))


def run(
    train: Sequence[Example],
    held_out: Sequence[Example] = (),
    judges: Judges | None = None,
    seed: int = 0,
    **settings: object,
) -> Augmented:
    chosen = AugmentSettings.model_validate({"operations": ["swap", "delete"], **settings})
    return augment(train, held_out, chosen, seed=seed, progress=Silent(), judges=judges)


def test_neither_the_order_of_examples_nor_other_examples_matter() -> None:
    train = films(40)
    texts = {e.id: e.text for e in run(train).examples}
    assert {e.id: e.text for e in run(train[::-1]).examples} == texts
    half = {e.id: e.text for e in run(train[:20]).examples}
    assert half.items() <= texts.items()
    assert {e.id: e.text for e in run(train, seed=1).examples} != texts


def test_labels_and_numbers_survive_in_a_thousand_valid_examples() -> None:
    train = films(250)
    made = run(train, operations=[{"op": "swap", "copies": 3}, {"op": "delete", "copies": 3}])
    assert len(made.examples) > 1000
    parents = {example.id: example for example in train}
    for example in made.examples:
        parent = parents[example.origin.parent]
        assert example.label == parent.label
        assert str(parent.origin.row - 2) in example.text.split()
    assert len({example.id for example in made.examples}) == len(made.examples)


def test_nothing_that_is_held_out_or_nearly_comes_back() -> None:
    train, held_out = films(40), films(40, 40)
    texts = {e.id: f"{e.text} and then some more words were said" for e in held_out}
    leaks = [e.with_text(texts[e.id]) for e in held_out]
    # An operation that says what is held out, as a paraphrase by chance may.
    made = run(train, leaks, operations=["tests.augmentation.test_policy:leaking"])
    assert made.examples == ()
    assert made.counts["tests.augmentation.test_policy:leaking"].taken == {"held-out": 40}
    kept = run(train, leaks).examples
    assert check_leakage(leaks, kept, "derived") == []


def leaking(example: Example, rng: object) -> list[Example]:
    line = sentences(80)[example.origin.row - 2 + 40]
    return [example.with_text(f"{line} and then some more words were spoken")]


def copying(example: Example, rng: object) -> list[Example]:
    other = sentences(80)[(example.origin.row - 2 + 1) % 40]
    return [
        example.with_text(example.text.upper()),
        example.with_text(f"{other} and then"),
        example.with_text("so"),
        example.with_text(""),
        example.with_text("我们在一个星期以前一起去了那个地方，后来就回家了"),
        example.with_text("the kettle that was painted went missing again last winter"),
    ]


def test_each_reason_is_counted() -> None:
    made = run(films(40), operations=["tests.augmentation.test_policy:copying"])
    [count] = made.counts.values()
    # The last two are the same for all: the first is foreign, or new, the others repeat it.
    assert count.made == 240
    assert count.kept == 1
    assert count.taken == {"broken": 40, "repeat": 157, "near": 40, "length": 1, "language": 1}


def test_what_nearly_repeats_its_parent_stays_unless_asked_otherwise() -> None:
    train = classified(*((f"{line} {line[:-7]}evening", "x") for line in sentences(12)))
    plain = run(train, operations=["delete"])
    strict = run(train, operations=["delete"], filters={"near_parent": False})
    assert plain.counts["delete"].kept == 12
    assert strict.counts["delete"].taken["near"] == 12 - strict.counts["delete"].kept > 0


def test_a_model_that_doubts_the_label_takes_the_example() -> None:
    def scores(examples: Sequence[Example]) -> list[Mapping[str, float]]:
        return [{"good": 0.9 if "lamp" in e.text else 0.2, "bad": 0.5} for e in examples]

    filters = FilterSettings(label_score=0.4).model_dump()
    made = run(films(40), judges=Judges(label_scores=scores), filters=filters)
    assert made.counts["swap"].taken["label"] > 0
    assert all("lamp" in e.text for e in made.examples if e.label == "good")


def test_a_model_of_meaning_takes_what_is_far() -> None:
    judges = Judges(nearness=lambda pairs: [float("lamp" in before) for _, before in pairs])
    made = run(films(40), judges=judges, operations=["swap"])
    assert {"lamp" in e.text for e in made.examples} == {True}


def test_rare_classes_are_brought_up_to_the_commonest() -> None:
    train = films(40)
    made = run(train, target="balanced")
    assert Counter(e.label for e in made.examples) == {"good": 20}
    assert len({e.origin.parent for e in made.examples}) == 10
    assert sum(count.taken.get("surplus", 0) for count in made.counts.values()) > 0


def test_the_same_operation_may_stand_twice() -> None:
    made = run(films(20), operations=[{"op": "swap"}, {"op": "swap", "alpha": 0.5}])
    assert list(made.counts) == ["swap", "swap#2"]
    assert len({e.id for e in made.examples}) == len(made.examples)


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(KilotuneError, match="synonym, insert, delete, swap"):
        run(films(10), operations=["swop"])
