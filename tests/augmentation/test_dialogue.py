import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from kilotune.augmentation.dialogue import (
    Rewriting,
    extend,
    follow_up,
    merge,
    prefixes,
    rewrite_turn,
    rewrite_user,
    systems,
)
from kilotune.augmentation.model_protocols import Conversation
from kilotune.augmentation.operation import Bulk, Draw
from kilotune.augmentation.policy import augment
from kilotune.augmentation.protection import Protection
from kilotune.data.checks import check_rows
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.schema import AugmentSettings
from tests.support.made import answered, classified, conversation

LONG = conversation(
    1,
    ("system", "Be brief."),
    ("user", "What is 2 + 2?"),
    ("assistant", "4"),
    ("user", "And a prime near it?"),
    ("assistant", "5"),
)


class Echo:
    """A writer that says what it was asked, in capitals; `silent` to words it has no answer to."""

    name = "echo"

    def __init__(self, silent: str = "?!") -> None:
        self.silent = silent

    def write(
        self, conversations: Sequence[Conversation], *, temperature: float, seed: int
    ) -> list[str]:
        last = [turns[-1].text.rpartition("\n")[2] for turns in conversations]
        return ["" if self.silent in text else f"so: {text.lower()}" for text in last]


def how(writer: Echo, refused: Counter[str]) -> Rewriting:
    return Rewriting(writer, Protection(), refused, temperature=0.0, seed=0)


def run(bulk: Bulk, *examples: Example, seed: int = 0) -> list[list[Example]]:
    made = bulk([Draw(example, random.Random(seed)) for example in examples])
    for example in (example for each in made for example in each):
        errors = [f for f in check_rows([example], "chat") if f.severity == "error"]
        assert errors == []
    return made


def told(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in example.messages]


def test_a_dialogue_is_split_into_its_prefixes() -> None:
    [made] = prefixes(LONG, random.Random(0))
    assert told(made) == told(LONG)[:3]
    assert prefixes(made, random.Random(0)) == []


def test_the_system_message_is_varied_from_a_list() -> None:
    [made] = systems(["Be brief.", "Be kind."])(LONG, random.Random(0))
    assert told(made) == [("system", "Be kind."), *told(LONG)[1:]]
    bare = answered(("Why?", "So."))[0]
    assert told(systems(["Be kind."])(bare, random.Random(0))[0])[0] == ("system", "Be kind.")
    assert systems(["Be brief."])(LONG, random.Random(0)) == []
    with pytest.raises(KilotuneError, match="no system messages"):
        systems([])


def test_short_dialogues_of_one_group_are_merged() -> None:
    first, second, other = (
        replace(example, group=group)
        for example, group in zip(
            answered(("One?", "1"), ("Two?", "2"), ("Tea?", "Yes")), "aab", strict=True
        )
    )
    made = run(merge([first, second, other]), first, second, other)
    assert [told(each[0])[1::2] for each in made[:2]] == [
        [("assistant", "1"), ("assistant", "2")],
        [("assistant", "2"), ("assistant", "1")],
    ]
    assert made[2] == []
    assert run(merge(classified(("a", "x"), ("b", "x"))), *classified(("a", "x"))) == [[]]


def test_a_dialogue_goes_on_with_an_exchange_of_its_group() -> None:
    train = [replace(LONG, group="sums"), replace(answered(("Six?", "6"))[0], id="b", group="sums")]
    made = run(extend(train), *train)
    assert told(made[0][0]) == [*told(LONG), ("user", "Six?"), ("assistant", "6")]
    assert told(made[1][0])[2:] == told(LONG)[1:3]
    assert run(extend([LONG]), LONG) == [[]]


def test_the_model_asks_and_answers_one_more_question() -> None:
    refused: Counter[str] = Counter()
    bulk = follow_up(how(Echo(), refused))
    [[made], labelled] = run(bulk, LONG, *classified(("Fine", "good")))
    assert told(made)[:5] == told(LONG)
    assert told(made)[5][1].startswith("so: ")
    assert told(made)[6] == ("assistant", f"so: {told(made)[5][1]}")
    assert labelled == []
    assert refused == {"no dialogue": 1}


def test_a_users_turn_is_rewritten_and_the_answers_stay() -> None:
    refused: Counter[str] = Counter()
    bulk = rewrite_user(how(Echo(), refused))
    for seed in range(20):
        [[made]] = run(bulk, LONG, seed=seed)
        assert [t for t in told(made) if t[0] != "user"] == [
            t for t in told(LONG) if t[0] != "user"
        ]
        assert sum(a != b for a, b in zip(told(made), told(LONG), strict=True)) == 1
    assert refused == {}


def test_a_rewritten_turn_that_lost_a_number_is_refused() -> None:
    class Vague(Echo):
        def write(
            self, conversations: Sequence[Conversation], *, temperature: float, seed: int
        ) -> list[str]:
            return ["What do they make?"] * len(conversations)

    refused: Counter[str] = Counter()
    bulk = rewrite_user(how(Vague(), refused))
    only = conversation(1, ("user", "What is 2 + 2?"), ("assistant", "4"))
    assert run(bulk, only) == [[]]
    assert refused == {"lost what is protected": 1}


def test_what_follows_a_rewritten_turn_is_answered_anew() -> None:
    refused: Counter[str] = Counter()
    bulk = rewrite_turn(how(Echo(), refused))
    roles = [role for role, _ in told(LONG)]
    seen = set()
    for seed in range(40):
        [[made]] = run(bulk, LONG, seed=seed)
        assert [role for role, _ in told(made)] == roles
        place = next(
            i for i, (a, b) in enumerate(zip(told(made), told(LONG), strict=True)) if a != b
        )
        seen.add(place)
        later = [(a, b) for a, b in list(zip(told(made), told(LONG), strict=True))[place + 1 :]]
        assert all((a != b) == (a[0] == "assistant") for a, b in later)
    assert seen == {0, 1, 2, 3, 4}


def test_an_answer_that_does_not_come_leaves_the_dialogue_out() -> None:
    refused: Counter[str] = Counter()
    bulk = rewrite_turn(how(Echo(silent="prime"), refused))
    made = [run(bulk, LONG, seed=seed)[0] for seed in range(20)]
    assert {len(each) for each in made} == {0, 1}
    assert refused["empty or copied answer"] > 0


def test_the_operations_have_names_and_leave_answers_alone() -> None:
    train = [
        replace(conversation(i, ("user", f"What is {i} + {i}?"), ("assistant", f"It is {i + i}.")))
        for i in range(1, 30)
    ]
    settings = AugmentSettings.model_validate(
        {"operations": ["merge", "system", "swap"], "systems": ["Be kind.", "Be brief."]}
    )
    made = augment(train, [], settings, seed=0, progress=Silent())
    assert {name: count.kept for name, count in made.counts.items()}["system"] == 29
    answers = {m.text for e in train for m in e.messages if m.role == "assistant"}
    assert {m.text for e in made.examples for m in e.messages if m.role == "assistant"} <= answers
