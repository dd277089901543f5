"""Images stay where they are when the words around them change."""

from hypothesis import given
from hypothesis import strategies as st

from kilotune.data.example import Example, Image, Message, Origin, Part
from kilotune.rendering.template import without_system
from kilotune.rendering.wording import Wording

A, B = Image("a.png"), Image("b.png")


def user(*parts: Part) -> Message:
    return Message("user", parts)


def test_another_text_leaves_images_as_far_from_its_start() -> None:
    message = user("one ", A, "two", B)
    assert message.with_text("one tw").content == ("one ", A, "tw", B)
    assert message.with_text("on").content == ("on", A, B)
    assert message.with_text("").content == (A, B)
    assert user(A, "old").with_text("new words").content == (A, "new words")
    assert Message("user", "old").with_text("new").content == "new"


@given(st.lists(st.text(max_size=5) | st.sampled_from([A, B]), min_size=1))
def test_the_same_text_changes_nothing(parts: list[Part]) -> None:
    message = user(*parts)
    changed = message.with_text(message.text)
    places = [
        [sum(len(p) for p in m.parts[:i] if isinstance(p, str)) for i, part in enumerate(m.parts)
         if isinstance(part, Image)]
        for m in (message, changed)
    ]  # fmt: skip
    assert (changed.text, changed.images, places[1]) == (message.text, message.images, places[0])


def test_words_go_around_texts_and_images() -> None:
    assert user("x ", A, " y").between("<", ">").content == ("<x ", A, " y>")
    assert user(A).between("<", ">").content == ("<", A, ">")
    assert user(A, "y").between("", "").content == (A, "y")
    assert Message("user", "x").between("<", ">").content == "<x>"


def test_a_system_message_goes_before_an_image_and_a_question_around_it() -> None:
    asked = user("before ", A, " after")
    (merged,) = without_system((Message("system", "Be brief."), asked))
    assert merged.content == ("Be brief.\n\nbefore ", A, " after")
    worded = Wording("", "Look: {text}?").apply(Example("data:1", (asked,), Origin("a", 1)))
    assert worded.messages[0].content == ("Look: before ", A, " after?")
