import json

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.data.tasks import detect_task, several_answers
from tests.support.made import conversation


def made(*answers: str | None, turns: int = 1) -> list[Example]:
    examples = []
    for row, answer in enumerate(answers):
        messages = [Message("user", "q"), *([Message("assistant", answer)] if answer else [])]
        examples.append(Example(f"data:{row}", tuple(messages * turns), Origin("a", row)))
    return examples


LONG = [f"This is the answer number {i}, and it goes on for quite a while." for i in range(20)]


@pytest.mark.parametrize(
    ("examples", "labelled", "task", "why"),
    [
        (made("a", "b") + made("c", turns=2), False, "chat", "1 of 3 examples have several"),
        (made(*["a", "b"] * 9) + made("a", "b", turns=2), False, "chat", "2 of 20 examples"),
        (made(*["a", "b"] * 9, "a") + made("b", turns=2), False, "classify", "2 different"),
        (made('{"a": 1}', "[1]"), False, "extract", "2 of 2 answers are JSON"),
        (made('{"a": 1}', "[1]"), True, "extract", "2 of 2 answers are JSON"),
        (made(*['{"a": 1}'] * 19, "{oops"), False, "extract", "19 of 20 answers are JSON"),
        (made(*["a", "b", "c", "d"] * 5), False, "classify", "4 different answers in 20"),
        (made(*["Good", "good ", "bad"] * 5), False, "classify", "2 different answers in 15"),
        (made(*["a", "b"] * 9, "c", "d"), False, "classify", "4 different answers in 20"),
        (made(*["a", "b"] * 8, *"cdef"), False, "generate", "6 different answers in 20"),
        (made(*"abcdefgh" * 2), False, "generate", "8 different answers in 16"),
        (made(*["x" * 61, "y" * 61] * 5), False, "generate", "2 different answers in 10"),
        (made(*LONG), False, "generate", "20 different answers in 20"),
        (made(*LONG), True, "generate", "20 different answers in 20"),
        (made(*LONG[:2] * 10), True, "classify", "2 different answers in 20"),
        (made(*(f"answer {i}" for i in range(20))), True, "classify", "20 different"),
        (made(None, None), True, "classify", "there are no answers"),
        (made(None, None), False, "generate", "there are no answers"),
        (made("12", "12"), False, "classify", "1 different answers in 2"),
    ],
)
def test_the_task_is_told_by_the_stated_rules(
    examples: list[Example], labelled: bool, task: str, why: str
) -> None:
    told, because = detect_task(examples, labelled)
    assert told == task
    assert because.startswith(why)


def test_the_odd_conversation_among_single_answers_is_named() -> None:
    examples = [
        *made(*["a", "b"] * 9, "a"),
        conversation(99, *[("user", "q"), ("assistant", "b")] * 2),
    ]
    (finding,) = several_answers(examples, "classify")
    assert (finding.code, finding.rows) == ("several-answers", ("data:99",))
    assert several_answers(examples, "chat") == []
    assert several_answers(examples[:10] + examples[-1:] * 2, "generate") == []
    assert several_answers([], "generate") == []


def test_deep_json_does_not_overflow() -> None:
    assert detect_task(made("[" * 100_000), False)[0] == "generate"
    assert detect_task(made(json.dumps({"a": [1, {"b": None}]})), False)[0] == "extract"
