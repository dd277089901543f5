"""Labels called otherwise to the model than in the data, and read back."""

from dataclasses import replace

import pytest

from kilotune.errors import KilotuneError
from kilotune.evaluation.task_metrics import reader
from kilotune.rendering.spelling import spelling
from kilotune.rendering.wording import wording
from tests.support.made import answered

LABELS = ("Sci/Tech", "WorldNews", "earn", "money-fx", "NASA_HTMLPages")
LOWER = {"Sci/Tech": "sci/tech", "WorldNews": "worldnews", "NASA_HTMLPages": "nasa_htmlpages"}
WORDS = {
    "Sci/Tech": "sci tech", "WorldNews": "world news", "money-fx": "money fx",
    "NASA_HTMLPages": "NASA HTML pages",
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "called"),
    [
        ("as_is", {}),
        ("lower", LOWER),
        ("words", WORDS),
        ("letters", dict(zip(LABELS, "ABCDE", strict=True))),
        ({"earn": "company results", "money-fx": "money-fx"}, {"earn": "company results"}),
    ],
)
def test_only_labels_that_are_called_otherwise_are_named(
    how: str | dict[str, str], called: dict[str, str]
) -> None:
    assert spelling(how, LABELS) == called


def test_what_is_no_name_as_in_code_stays() -> None:
    assert spelling("words", ("<", "-", "好评")) == {}


@pytest.mark.parametrize(
    ("how", "labels", "words"),
    [
        ("words", ("a_b", "a-b"), "'a_b' and 'a-b' would be one answer"),
        ({"a": "B"}, ("a", "b"), "'a' and 'b' would be one answer"),
        ({"a": " "}, ("a", "b"), "'a' would be no answer"),
        ({"c": "d"}, ("a", "b"), "no label 'c'; the labels are a, b"),
        ("letters", tuple(map(str, range(27))), "27 labels are more than there are letters"),
    ],
)
def test_labels_that_could_not_be_told_apart_are_refused(
    how: str | dict[str, str], labels: tuple[str, ...], words: str
) -> None:
    with pytest.raises(KilotuneError, match=words) as caught:
        spelling(how, labels)
    assert caught.value.where.startswith("data.label_wording")


def test_labels_that_are_alike_in_the_data_are_left_to_its_checks() -> None:
    assert spelling("as_is", ("Good", "good", "good.")) == {}


def test_the_answer_is_called_as_the_system_message_lists_it_and_the_label_stays() -> None:
    (row,) = answered(("Rates rose.", "money-fx"))
    worded = wording(None, None, LABELS, "words").apply(replace(row, label="money-fx"))
    assert worded.answer == "money fx"
    assert worded.label == "money-fx"
    assert "sci tech, world news, earn, money fx, NASA HTML pages" in worded.messages[0].text
    letters = wording("One of {labels}.", None, ("bad", "good"), "letters")
    assert letters.system == "One of A (bad), B (good)."
    assert wording(None, None, LABELS, "words").apply(row).answer == "money-fx"  # no label


def test_answers_are_read_as_labels_of_the_data_even_where_names_are_exchanged() -> None:
    read = reader("classify", LABELS, wording(None, None, LABELS, "words"))
    assert read("Money FX.") == "money-fx"
    assert read("It is world news") == "WorldNews"
    assert read("money-fx") == ""  # it was told another name
    names = ("a", "b")
    exchanged = reader("classify", names, wording(None, None, names, {"a": "b", "b": "a"}))
    assert (exchanged("a"), exchanged("b")) == ("b", "a")
    assert reader("generate", (), wording(None, None, ()))(" free text ") == "free text"
