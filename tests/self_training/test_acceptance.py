"""What is taken of guesses on unlabelled texts: by threshold, by quota, and never what is known."""

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.evaluation.confidence import Guess, Trust, confidence
from kilotune.self_training.acceptance import (
    BELOW,
    DIFFERS,
    NO_ANSWER,
    QUOTA,
    Quotas,
    as_examples,
    quotas,
    real_precision,
    select,
    without_known,
)

TRUST = Trust(2.0, (0.1, 0.0), 100, 0.8, 0.7, 40)
LABELS = ("a", "b")


def row(number: int, text: str, label: str | None = None, group: str | None = "group") -> Example:
    said = (Message("user", text), *([Message("assistant", label)] if label else []))
    return Example(f"unlabeled:{number}", said, Origin("more.csv", number), label, group)


def guess(label: str, gap: float, agrees: bool = True) -> Guess:
    return Guess(label, (gap, 0.0) if label == "a" else (0.0, gap), LABELS.index(label), agrees)


def test_quotas_are_divided_as_the_labelled_part_is() -> None:
    train = [row(i, f"text {i}", "a" if i < 6 else "b") for i in range(8)]
    assert quotas(train, 40).shares == {"a": 0.75, "b": 0.25}
    many = {f"a{i}": guess("a", 8) for i in range(100)}
    many |= {f"b{i}": guess("b", 8) for i in range(100)}
    chosen = select(many, LABELS, TRUST, quotas(train, 40), 0)
    assert chosen.by_label == {"a": 30, "b": 10}
    assert chosen.left == {QUOTA: 160}
    # Where there are fewer than may be taken, the quotas are of these.
    few = {f"a{i}": guess("a", 8) for i in range(4)} | {f"b{i}": guess("b", 8) for i in range(4)}
    assert select(few, LABELS, TRUST, quotas(train, 40), 0).by_label == {"a": 4, "b": 2}


def test_what_is_left_is_left_for_a_reason_and_the_draw_is_the_seeds() -> None:
    guesses = {
        **{f"a{i}": guess("a", 8) for i in range(30)},
        "low": guess("a", 1.6), "other": guess("a", 8, agrees=False),
        "none": Guess("", (0.0,), 0, False),
    }  # fmt: skip
    assert confidence(guesses["low"], 2.0) < 0.7 < confidence(guesses["low"], 1.0)
    quota = Quotas(10, {"a": 0.5, "b": 0.5})
    first = select(guesses, LABELS, TRUST, quota, 0)
    assert first.left == {BELOW: 1, DIFFERS: 1, NO_ANSWER: 1, QUOTA: 25}
    assert len(first.taken) == 5
    assert select(guesses, LABELS, TRUST, quota, 0) == first
    assert select(dict(reversed(guesses.items())), LABELS, TRUST, quota, 0) == first
    assert select(guesses, LABELS, TRUST, quota, 1).taken != first.taken


def test_without_a_threshold_nothing_is_taken() -> None:
    none = Trust(1.0, (0.0, 0.0), 10, 1.0, None)
    chosen = select({"x": guess("a", 50)}, LABELS, none, Quotas(5, {"a": 1.0}), 0)
    assert (chosen.taken, chosen.left) == ((), {BELOW: 1})


def test_free_answers_have_no_quota_but_the_most() -> None:
    guesses = {f"t{i}": Guess(f"answer {i}", (9.0, 0.0), 0) for i in range(9)}
    chosen = select(guesses, (), TRUST, quotas([row(1, "x")], 4), 0)
    assert (len(chosen.taken), chosen.by_label, chosen.left) == (4, {}, {QUOTA: 5})


def test_examples_say_where_they_are_from_and_weigh_what_is_sure() -> None:
    rows = {"unlabeled:7": row(7, "hello", "b")}
    guesses = {"unlabeled:7": guess("a", 4.0)}
    quota = Quotas(5, {"a": 1.0})
    (made,) = as_examples(select(guesses, LABELS, TRUST, quota, 0), rows, 0.5, closed=True)
    assert made.origin == Origin("more.csv", 7, "pseudo-label", "unlabeled:7")
    assert [(m.role, m.text) for m in made.messages] == [("user", "hello"), ("assistant", "a")]
    assert (made.label, made.group) == ("a", None)
    assert made.weight == pytest.approx(0.5 * confidence(guesses["unlabeled:7"], 2.0))


def test_a_soft_label_is_an_example_of_each_likely_label() -> None:
    rows = {"unlabeled:7": row(7, "hello")}
    guesses = {"unlabeled:7": guess("a", 4.0)}
    quota = Quotas(5, {"a": 1.0})
    chosen = select(guesses, LABELS, TRUST, quota, 0, soft=True)
    made = as_examples(chosen, rows, 1.0, closed=True)
    likely = confidence(guesses["unlabeled:7"], 2.0)
    assert {e.label: e.weight for e in made} == pytest.approx({"a": likely, "b": 1 - likely})
    assert len({e.id for e in made}) == 2
    surer = select({"unlabeled:7": guess("a", 12.0)}, LABELS, TRUST, quota, 0, soft=True)
    assert [e.weight for e in as_examples(surer, rows, 1.0, closed=True)] == [1.0]


LONG = "the harbour was full of small boats and the old men mended their nets in the morning sun"


def test_what_is_known_from_any_part_is_left_out_exactly_or_nearly() -> None:
    parts = {
        "train": [row(1, "what the train part says of it", "a", "known")],
        "validation": [row(2, LONG, "a", None)],
        "test": [row(3, "the test part has words of its own, these", "b", "of the test")],
    }
    rows = [
        row(11, "What  the train part says of it"), row(12, f"{LONG} today"),
        row(13, "the test part has words of its own, these"), row(14, "something else altogether"),
        row(15, "something else altogether"), row(16, "and a last one about the weather there"),
        row(17, "by one whose texts are tested", group="of the test"),
        row(18, "by nobody", group=None),
    ]  # fmt: skip
    kept, left = without_known(rows, parts)
    assert [example.id for example in kept] == ["unlabeled:14", "unlabeled:16", "unlabeled:18"]
    assert left == {
        "of a known group": 1, "repeats train": 1, "repeats validation": 1, "repeats test": 1,
        "repeats another row": 1,
    }  # fmt: skip


def test_real_precision_is_of_the_known_alone() -> None:
    assert real_precision({}) is None
    found = real_precision({str(i): i < 9 for i in range(10)})
    assert found is not None
    assert found.value == 0.9
