"""How answers came out: each way is counted where it is so, and only there."""

import pytest

from kilotune.evaluation.health import (
    Health,
    broken,
    echoes,
    faults,
    foreign,
    health,
    loops,
    repeated,
)

PROSE = (
    "The committee met on Tuesday to look at the plans for the harbour. Two of its members "
    "thought that the new wall would be too low, since the storms of last winter had gone over "
    "the old one; the others wanted to know first what it would cost. They agreed to ask the "
    "engineer, who is away until the end of the month, and to meet again when he is back."
)


@pytest.mark.parametrize(
    "text",
    ["the cat sat. " * 6, "a" * 300, "!" * 30, "好的" * 7, "Yes, yes, yes, yes, yes, yes, yes"],
)
def test_a_text_that_goes_round_is_a_loop(text: str) -> None:
    assert loops(text)


@pytest.mark.parametrize("text", [PROSE, "no no no", "", "今天天气很好，我们去公园散步吧。"])
def test_prose_and_short_answers_are_no_loops(text: str) -> None:
    assert not loops(text)


def test_the_loop_measure_is_the_share_of_4_grams_that_came_before() -> None:
    # 16 units, 13 4-grams: a b c d ... of which 4 are new and 9 came before.
    assert repeated("a b c d " * 4) == pytest.approx(9 / 13)
    assert repeated("a b c d e f g h i j k l") == 0
    assert repeated("a a a a a a a a a a a") == 0  # eleven units are too few


def test_a_copy_of_the_prompt_is_an_echo_but_a_quotation_that_is_right_is_none() -> None:
    asked = f"Summarise the text in a word.\n{PROSE}"
    assert echoes(PROSE, asked, "harbour")
    assert echoes("Summarise the text in a word. The committee met on Tuesday", asked, "harbour")
    assert not echoes(PROSE[:120], asked, PROSE[:150])
    assert not echoes("The committee met", asked, "harbour")  # too short to tell


def test_another_script_or_a_plainly_other_language_is_foreign() -> None:
    german = "Der Ausschuss hat sich mit den Plänen für den Hafen und dem Wetter nicht befasst."
    assert foreign("好的，没有问题", PROSE)
    assert foreign(german, PROSE)
    assert not foreign("42", PROSE)
    assert not foreign("positive", "negative")
    assert not foreign(PROSE, "")


def test_every_way_is_counted_once_an_answer() -> None:
    texts = ["positive", "", "no " * 20, "hm", PROSE]
    found = health(
        texts,
        stopped=[True, True, False, True, False],
        unread=[False, True, True, True, False],
        prompts=["x", "x", "x", "x", f"Copy: {PROSE}"],
        references=["positive", "negative", None, "negative", "negative"],
    )
    assert found == Health(
        answers=5, stopped=3, cut=2, empty=1, looping=1, echoing=1, foreign=0, unparsable=2
    )
    assert found.share("cut") == 0.4
    assert faults(found)[:2] == ["2 of 5 not readable", "2 of 5 at the length limit"]


def test_what_a_few_of_many_answers_do_is_not_worth_a_word() -> None:
    assert faults(Health(100, 96, 4, 0, 1, 0, 0, 4)) == []
    assert faults(Health(100, 90, 10, 0, 0, 0, 0, 0)) == ["10 of 100 at the length limit"]


def of(texts: list[str], ended: bool = True) -> Health:
    nothing = [ended] * len(texts)
    return health(
        texts, stopped=nothing, unread=nothing, prompts=texts, references=[None] * len(texts)
    )


def test_a_model_that_says_nothing_or_one_sign_to_all_is_broken() -> None:
    assert broken([""] * 6, of([""] * 6)) == "all 6 answers are empty"
    assert broken(["!!!!!!!"] * 6, of(["!!!!!!!"] * 6)) == "all 6 answers are '!!!!!!!'"


def test_one_word_for_all_and_never_stopping_are_not_broken() -> None:
    for texts in (["positive"] * 6, [PROSE] * 6, [""] * 4, ["", "", "", "", "a"]):
        assert broken(texts, of(texts)) == ""
    assert broken([""] * 6, of([""] * 6, ended=False)) == ""  # white space up to the limit
