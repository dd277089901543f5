import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.errors import KilotuneError
from kilotune.rendering.probe import chat_template
from kilotune.rendering.truncation import fit
from kilotune.rendering.wording import Wording, wording
from tests.support.tiny import CHATML, byte_tokenizer

WORDING = Wording("Choose.", "Text: {text}\nLabel:")


def question(text: str) -> Example:
    messages = (Message("user", text), Message("assistant", "yes"))
    return Example("data:1", messages, Origin("a.csv", 1), label="yes")


def test_a_refused_system_message_goes_before_the_users() -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    template = chat_template(byte_tokenizer(strict + CHATML))
    assert not template.takes_system
    text = template.text((Message("system", "Choose."), Message("user", "hi")))
    assert text == "<|im_start|>user\nChoose.\n\nhi<|im_end|>\n"


def test_a_dropped_system_message_counts_as_refused() -> None:
    dropping = CHATML.replace(
        "{% for m in messages %}", "{% for m in messages if m.role != 'system' %}"
    )
    assert not chat_template(byte_tokenizer(dropping)).takes_system


def test_wording_puts_system_and_question_around_the_text() -> None:
    worded = WORDING.apply(question("hi"))
    assert [(m.role, m.content) for m in worded.messages] == [
        ("system", "Choose."),
        ("user", "Text: hi\nLabel:"),
        ("assistant", "yes"),
    ]
    assert (worded.id, worded.label) == ("data:1", "yes")


def test_wording_lists_the_labels_and_wants_the_text() -> None:
    assert wording("One of {labels}.", None, ("a", "b")).system == "One of a, b."
    with pytest.raises(KilotuneError, match=r"no \{text\}"):
        wording(None, "Label:", ("a", "b"))


def test_only_the_text_is_cut_to_fit() -> None:
    template = chat_template(byte_tokenizer())
    whole, cut = fit(template, WORDING, question("x" * 50), 200)
    assert not cut
    assert whole.text == f"Text: {'x' * 50}\nLabel:"
    full = len(template.prompt_ids(whole.prompt)) + len("yes") + 1
    fitting, cut = fit(template, WORDING, question("x" * 50), full - 10)
    assert cut
    assert fitting.text == f"Text: {'x' * 40}\nLabel:"
    assert fitting.messages[-1].content == "yes"


def test_a_cut_through_a_character_leaves_nothing_of_it() -> None:
    template = chat_template(byte_tokenizer())
    full = len(template.prompt_ids(WORDING.apply(question("字字字")).prompt)) + len("yes") + 1
    fitting, cut = fit(template, WORDING, question("字字字"), full - 1)
    assert cut
    assert fitting.text == "Text: 字字\nLabel:"


def test_no_room_for_any_text_is_an_error_that_names_the_row() -> None:
    template = chat_template(byte_tokenizer())
    with pytest.raises(KilotuneError, match="max_length 20") as caught:
        fit(template, WORDING, question("hello"), 20)
    assert caught.value.where == "a.csv:1"
