from kilotune.data.checks import check_rows, conversation
from kilotune.data.checks.conversation import repeated_question
from kilotune.data.example import Example, Image, Message, Origin
from tests.support.made import answered
from tests.support.made import conversation as made


def test_a_good_conversation_is_left_alone() -> None:
    good = made(
        1, ("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")
    )
    assert check_rows([good], "chat") == []


def test_turns_that_repeat_begin_wrongly_or_lack_the_user() -> None:
    rows = [
        made(1, ("user", "a"), ("user", "b"), ("assistant", "c")),
        made(2, ("user", "a"), ("assistant", "b"), ("assistant", "c")),
        made(3, ("assistant", "a"), ("user", "b"), ("assistant", "c")),
        made(4, ("system", "a"), ("assistant", "b")),
        made(5, ("system", "a"), ("user", "b"), ("assistant", "c")),
    ]
    (finding,) = conversation.turn_order(rows)
    assert finding.rows == ("data:1", "data:2", "data:3", "data:4")


def test_a_system_message_after_the_first_is_named() -> None:
    rows = [
        made(1, ("user", "a"), ("system", "b"), ("assistant", "c")),
        made(2, ("system", "a"), ("system", "b"), ("user", "c"), ("assistant", "d")),
        made(3, ("system", "a"), ("user", "b"), ("assistant", "c")),
    ]
    (finding,) = conversation.system_not_first(rows)
    assert (finding.severity, finding.rows) == ("error", ("data:1", "data:2"))


def test_unknown_roles_are_named() -> None:
    (finding,) = conversation.unknown_role(
        [made(1, ("user", "a"), ("narrator", "b"), ("assistant", "c"))]
    )
    assert "'narrator'" in finding.message
    assert finding.rows == ("data:1",)


def test_answers_that_are_missing_or_empty() -> None:
    rows = [
        made(1, ("user", "a")),
        made(2, ("user", "a"), ("assistant", " ")),
        made(3, ("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")),
        *answered(("a", "b")),
    ]
    found = {finding.code: finding.rows for finding in check_rows(rows, "generate")}
    assert found == {"missing-answer": ("data:1",), "empty-answer": ("data:2", "data:3")}


def test_an_image_alone_is_not_an_empty_text() -> None:
    shown = Example("data:1", (Message("user", (Image("a.png"),)),), Origin("a", 1), "cat")
    blank = made(2, ("user", "\n "))
    (finding,) = conversation.empty_text([shown, blank])
    assert finding.rows == ("data:2",)


def test_answers_that_repeat_the_question_are_found() -> None:
    rows = answered(
        ("What is it?", "A film."), ("What is it?", "what is  it?"), ("Say: yes", "yes")
    )
    (finding,) = repeated_question(rows)
    assert (finding.code, finding.rows) == ("answer-repeats", ("data:2",))
