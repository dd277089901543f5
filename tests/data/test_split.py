from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilotune.data.checks import check_leakage
from kilotune.data.checks.conversation import MINIMUM_EXAMPLES
from kilotune.data.example import Example, Message, Origin, comparable
from kilotune.data.split import Split, hold_out, split_examples
from kilotune.errors import KilotuneError
from tests.support.made import conversation


def made(texts: list[str], labels: list[str]) -> list[Example]:
    return [
        Example(f"data:{i}", (Message("user", t),), Origin("a", i), label)
        for i, (t, label) in enumerate(zip(texts, labels, strict=True))
    ]


def alone(examples: list[Example]) -> dict[str, int]:
    return {example.id: number for number, example in enumerate(examples)}


def parts_of(examples: list[Example], seed: int = 0) -> tuple[list[str], ...]:
    split = split_examples(
        examples,
        validation=None,
        test=None,
        validation_fraction=0.2,
        test_fraction=0.2,
        seed=seed,
    )
    return tuple(split.ids().values())


@given(
    st.lists(
        st.tuples(st.sampled_from([f"text {i}" for i in range(40)]), st.sampled_from("abc")),
        min_size=10,
        max_size=60,
    ).filter(lambda pairs: len({text for text, _ in pairs}) >= MINIMUM_EXAMPLES),
    st.integers(0, 5),
)
def test_parts_are_disjoint_complete_and_keep_repeated_texts_together(
    pairs: list[tuple[str, str]], seed: int
) -> None:
    texts, labels = [t for t, _ in pairs], [label for _, label in pairs]
    examples = made(texts, labels)
    parts = parts_of(examples, seed)
    assert sorted(i for part in parts for i in part) == sorted(e.id for e in examples)
    by_id = {e.id: comparable(e.text) for e in examples}
    texts_of = [{by_id[i] for i in part} for part in parts]
    together = set.union(*texts_of)
    assert sum(len(texts) for texts in texts_of) == len(together)


def test_classes_keep_their_shares() -> None:
    labels = ["a"] * 120 + ["b"] * 60 + ["c"] * 20
    examples = made([f"t{i}" for i in range(200)], labels)
    kept, held = hold_out(examples, alone(examples), 0.2, seed=3)
    assert Counter(e.label for e in held) == {"a": 24, "b": 12, "c": 4}
    assert len(kept) == 160


def test_the_same_seed_gives_the_same_parts_and_another_seed_others() -> None:
    examples = made([f"t{i}" for i in range(50)], ["a", "b"] * 25)
    assert parts_of(examples, 1) == parts_of(examples, 1)
    assert parts_of(examples, 1) != parts_of(examples, 2)


def test_more_than_half_can_be_held_out() -> None:
    examples = made([f"t{i}" for i in range(100)], ["a", "b"] * 50)
    kept, held = hold_out(examples, alone(examples), 0.75, seed=0)
    assert (len(kept), len(held)) == (25, 75)


def test_given_parts_are_used_as_they_are() -> None:
    examples = made([f"t{i}" for i in range(20)], ["a", "b"] * 10)
    given_test = made(["x", "y"], ["a", "b"])
    split = split_examples(
        examples,
        validation=None,
        test=given_test,
        validation_fraction=0.2,
        test_fraction=0.2,
        seed=0,
    )
    assert split.test == tuple(given_test)
    assert len(split.train) + len(split.validation) == 20


def unrelated(count: int) -> list[str]:
    """Texts of 15 words, then as many of 24 Han signs; none is like another."""
    rng = Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=6)) for _ in range(15 * count)]
    signs = [chr(0x4E00 + rng.randrange(2500)) for _ in range(24 * count)]
    return [" ".join(words[15 * i : 15 * i + 15]) for i in range(count)] + [
        "".join(signs[24 * i : 24 * i + 24]) for i in range(count)
    ]


BASES = unrelated(15)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(BASES),
            st.sampled_from(["", " indeed", "!", " 也"]),
            st.sampled_from(["", "", "", "g1", "g2", "g3", "g4", "g5", "g6"]),
            st.sampled_from("ab"),
        ),
        min_size=20,
        max_size=60,
    ),
    st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_no_split_leaks_a_text_nearly_a_text_or_a_group(
    rows: list[tuple[str, str, str, str]], seed: int
) -> None:
    examples = [
        Example(f"data:{i}", (Message("user", base + end),), Origin("a", i), label, group or None)
        for i, (base, end, group, label) in enumerate(rows)
    ]
    try:
        split = split_examples(
            examples,
            validation=None,
            test=None,
            validation_fraction=0.2,
            test_fraction=0.2,
            seed=seed,
        )
    except KilotuneError:
        # Groups and copies can tie everything together.
        return
    assert leaks(split) == []
    assert sum(map(len, split.ids().values())) == len(rows)


def leaks(split: Split) -> list[object]:
    return [
        *check_leakage(split.train, split.test, "test"),
        *check_leakage(split.train, split.validation, "validation"),
        *check_leakage(split.validation, split.test, "test", "validation"),
    ]


def test_examples_that_must_all_stay_together_cannot_be_split() -> None:
    examples = made([f"text {i}" for i in range(20)], ["a", "b"] * 10)
    with pytest.raises(KilotuneError, match="none can be held out"):
        hold_out(examples, dict.fromkeys(alone(examples), 0), 0.2, seed=0)


def test_a_large_group_stays_in_training() -> None:
    examples = made([f"text {i}" for i in range(60)], ["a", "b"] * 30)
    whole = {e.id: 0 if number < 40 else number for number, e in enumerate(examples)}
    for seed in range(5):
        kept, held = hold_out(examples, whole, 0.2, seed)
        assert {e.id for e in examples[:40]} <= {e.id for e in kept}
        assert 4 <= len(held) <= 18


def split_in_fifths(examples: list[Example], seed: int = 0) -> Split:
    return split_examples(
        examples,
        validation=None,
        test=None,
        validation_fraction=0.2,
        test_fraction=0.2,
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(5))
def test_many_copies_of_one_text_stay_in_one_part(seed: int) -> None:
    rng = Random(seed)
    words = " ".join(unrelated(2)[:2]).split()
    copies = [[*words] for _ in range(30)]
    for copy in copies:
        copy[rng.randrange(30)] = "".join(rng.choices("abcdefgh", k=8))
    texts = [" ".join(copy) for copy in copies] + unrelated(72)[2:72]
    split = split_in_fifths(made(texts, ["a", "b"] * 50), seed)
    ids = {f"data:{i}" for i in range(30)}
    homes = [name for name, part in split.ids().items() if ids & set(part)]
    assert len(homes) == 1
    assert min(map(len, split.ids().values())) >= 10
    assert leaks(split) == []


def test_what_is_larger_than_a_part_could_be_is_said() -> None:
    groups = ["big"] * 40 + [f"g{i}" for i in range(60)]
    examples = [
        replace(example, group=group)
        for example, group in zip(made([f"t{i}" for i in range(100)], ["a", "b"] * 50), groups,
                                  strict=True)
    ]  # fmt: skip
    split = split_in_fifths(examples)
    (finding,) = split.findings
    assert (finding.code, finding.severity) == ("kept-together", "warning")
    assert finding.rows == tuple(example.id for example in examples[:40])
    assert "(40) than a part held out should have (18)" in finding.message
    assert all(split.ids().values())
    small = [replace(e, group=f"g{i // 4}") for i, e in enumerate(examples)]
    assert split_in_fifths(small).findings == ()
    # The pairs of ten rows are larger than a part of two, and no news.
    assert split_in_fifths([replace(e, group=f"g{i // 2}") for i, e in enumerate(small[:10])]
                           ).findings == ()  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 8)), min_size=10, max_size=40
    ).filter(lambda rows: len({group for _, group in rows}) >= 3),
    st.integers(0, 3),
)
def test_three_groups_are_enough_for_three_parts(rows: list[tuple[str, int]], seed: int) -> None:
    examples = [
        replace(example, group=f"g{group}")
        for example, (_, group) in zip(
            made([f"t{i}" for i in range(len(rows))], [label for label, _ in rows]),
            rows,
            strict=True,
        )
    ]
    split = split_in_fifths(examples, seed)
    groups = [{example.group for example in part} for part in split.named().values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_rare_labels_do_not_make_a_part_larger() -> None:
    examples = made([f"t{i}" for i in range(20)], [f"l{i // 2}" for i in range(20)])
    _, held = hold_out(examples, alone(examples), 0.2, seed=0)
    assert len(held) == 4


def test_labels_that_differ_in_every_row_can_be_split() -> None:
    examples = made(["one", "two", "three"], ["a", "b", "c"])
    kept, held = hold_out(examples, alone(examples), 0.2, seed=0)
    assert (len(kept), len(held)) == (2, 1)


def test_growing_conversations_are_split_whole() -> None:
    rows: list[Example] = []
    for number in range(24):
        turns: list[tuple[str, str]] = []
        for step in range(3):
            turns += [("user", f"question {number}.{step}"), ("assistant", f"{number}.{step}")]
            rows.append(conversation(len(rows), *turns))
    parts = split_examples(
        rows, validation=None, test=None, validation_fraction=0.2, test_fraction=0.2, seed=0
    )
    numbers = [{e.messages[0].text for e in part} for part in parts.named().values()]
    assert all(numbers)
    assert sum(map(len, numbers)) == len(set().union(*numbers)) == 24
