"""A judge that compares answers: both orders, ties, and what cannot be read."""

from collections.abc import Callable, Sequence

import pytest

from kilotune.evaluation.evidence import Figure
from kilotune.evaluation.preference import (
    PROMPT,
    Opinion,
    Pair,
    Preference,
    compare,
    in_words,
    outcome,
    read,
    worded,
)

SHORT = "{question}|{first}|{second}"


def pairs(count: int, base: str = "no", tuned: str = "well, yes") -> list[Pair]:
    return [Pair(f"data:{n}", f"q{n}", "yes", base, tuned) for n in range(count)]


def judged(reply: Callable[[str, str], str], asked: Sequence[Pair]) -> Preference:
    def judge(prompts: Sequence[str]) -> list[str]:
        return [reply(*prompt.split("|")[1:]) for prompt in prompts]

    return compare(judge, asked, name="fake", prompt=SHORT, samples=200, seed=0)


def longer(first: str, second: str) -> str:
    return "[[A]]" if len(first) > len(second) else "[[B]]"


def test_an_answer_preferred_in_both_orders_wins() -> None:
    found = judged(longer, pairs(12))
    assert (found.paired.wins, found.paired.losses, found.inconsistent) == (12, 0, 0)
    assert found.paired.p_value == pytest.approx(2 / 2**12)
    assert isinstance(found.rate, Figure)
    assert found.rate.value == 1.0
    assert found.rate.low < 1
    assert found.opinions[0] == Opinion("data:0", "tuned", ("[[B]]", "[[A]]"))
    worse = judged(longer, pairs(12, base="something long", tuned="no"))
    assert (worse.paired.wins, worse.paired.losses) == (0, 12)


def test_a_judge_that_always_prefers_a_place_proves_nothing() -> None:
    found = judged(lambda *_: "[[A]]", pairs(12))
    assert (found.paired.wins, found.paired.losses, found.paired.ties) == (0, 0, 12)
    assert (found.inconsistent, found.first, found.second) == (12, 12, 0)
    assert found.paired.p_value == 1.0
    assert found.rate.value == 0.5


def test_equal_answers_are_ties_that_nobody_is_asked_about() -> None:
    def never(*_: str) -> str:
        raise AssertionError

    found = judged(never, pairs(8, base="yes ", tuned="yes"))
    assert (found.same, found.paired.ties, found.rate.value) == (8, 8, 0.5)


def test_replies_without_a_verdict_count_nowhere() -> None:
    def reply(first: str, second: str) -> str:
        return "I cannot say" if "odd" in first else longer(first, second)

    found = judged(reply, [*pairs(6), Pair("data:9", "q", "yes", "odd", "well")])
    assert (found.pairs, found.unread) == (7, 1)
    assert (found.paired.wins, found.paired.ties) == (6, 0)
    assert in_words(found).endswith("1 replies without a verdict")


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("[[A]]", "first"),
        ("Both are fine, but the second is shorter. Final verdict: [[b]]", "second"),
        ("[[C]]", "tie"),
        ("[[tie]]", "tie"),
        ("**A**", "first"),
        ("Answer B.", "second"),
        ("A is a good answer", "unread"),
        ("[[A]] or [[B]]", "unread"),
        ("[[A]], yes: [[A]]", "first"),
        ("", "unread"),
        ("Because", "unread"),
    ],
)
def test_a_reply_is_read_only_where_it_names_one_verdict(reply: str, place: str) -> None:
    assert read(reply) == place


def test_a_win_in_one_order_and_a_tie_in_the_other_is_inconsistent() -> None:
    assert outcome("[[B]]", "[[C]]") == "inconsistent"
    assert outcome("[[C]]", "[[C]]") == "tie"


def test_braces_in_answers_are_no_fields() -> None:
    pair = Pair("data:1", "Write {first}", "{}", "{second}", "{'a': 1}")
    assert worded(SHORT, pair, pair.base, pair.tuned) == "Write {first}|{second}|{'a': 1}"
    whole = worded(PROMPT, pair, pair.base, pair.tuned)
    assert "[Answer A]\n{second}\n" in whole
    assert "[Reference answer]\n{}\n" in whole
