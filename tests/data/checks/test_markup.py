import pytest

from kilotune.data.checks.markup import html_remains, template_markers
from tests.support.made import answered, classified


@pytest.mark.parametrize(
    "text",
    [
        "one<br />two",
        "<b>bold</b>",
        "fish &amp; chips",
        "it&#39;s",
        '<a href="x">y',
        "</p>",
        "<BR>",
    ],
)
def test_html_is_found(text: str) -> None:
    (finding,) = html_remains(classified(("fine", "a"), (text, "a")))
    assert (finding.code, finding.rows) == ("html-remains", ("data:3",))


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d", "AT&T; R&D", "i <3 you", "List<String> names", "what does <p> do?",
        "write `<b>x</b>`", "fix this:\n```html\n<b>x</b>\n```\nplease", "<name> said </nothing>",
        "Write the HTML of a link: <a href='x'>y</a>",
    ],
)  # fmt: skip
def test_what_only_looks_like_html_is_left_alone(text: str) -> None:
    assert html_remains(classified((text, "a"))) == []


def test_answers_that_are_to_be_html_are_left_alone() -> None:
    pages = [(f"a page about {i}", f"<p>{i}</p>") for i in range(5)]
    assert html_remains(answered(*pages)) == []
    (finding,) = html_remains(answered(*pages[:2], *((f"q{i}", "plain") for i in range(5))))
    assert finding.rows == ("data:1", "data:2")


@pytest.mark.parametrize(
    "marker",
    [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|user|>",
        "[INST]", "[/INST]", "<<SYS>>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "<bos>",
        "<｜User｜>", "<｜end▁of▁sentence｜>", "[gMASK]",
    ],
)  # fmt: skip
def test_markers_of_templates_are_found_in_any_text(marker: str) -> None:
    (asked,) = template_markers(answered(("fine", "fine"), (f"stop {marker} here", "fine")))
    (answer,) = template_markers(answered(("fine", f"{marker}fine")))
    assert (asked.code, asked.rows, answer.rows) == ("template-markers", ("data:2",), ("data:1",))


@pytest.mark.parametrize("text", ["a <| b |> c", "[INSTALL]", "<start>", "list[int]", "<su>"])
def test_what_only_looks_like_a_marker_is_left_alone(text: str) -> None:
    assert template_markers(classified((text, "a"))) == []


def test_a_tag_that_is_quoted_is_spoken_of_in_the_whole_conversation() -> None:
    quoting, plain = ("what does `<br>` do?", "It breaks lines: <br>"), ("now?", "one<br>two")
    (finding,) = html_remains(answered(quoting, plain, *[("why?", "because")] * 3))
    assert finding.rows == ("data:2",)
