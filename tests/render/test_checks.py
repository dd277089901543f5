from dataclasses import replace

from kilotune.data.example import Example, Message, Origin
from kilotune.render.checks import check_renderings, truncated
from kilotune.render.labels import Rendering, render
from kilotune.render.probe import chat_template
from tests.tiny import byte_tokenizer

TEMPLATE = chat_template(byte_tokenizer())
EXAMPLE = Example(
    "data:1", (Message("user", "hi"), Message("assistant", "yes")), Origin("a", 1), "yes"
)
GOOD = render(TEMPLATE, EXAMPLE)


def codes(rendering: Rendering) -> list[str]:
    return [finding.code for finding in check_renderings(TEMPLATE, [EXAMPLE], [rendering])]


def test_a_good_rendering_has_no_findings() -> None:
    assert codes(GOOD) == []


def test_a_stop_token_that_is_not_trained_is_found() -> None:
    assert codes(replace(GOOD, label_mask=(*GOOD.label_mask[:-1], False))) == ["stop-untrained"]


def test_a_prompt_unlike_the_one_that_is_generated_from_is_found() -> None:
    ids = (GOOD.token_ids[1], *GOOD.token_ids[1:])
    assert codes(replace(GOOD, token_ids=ids)) == ["prompt-mismatch"]


def test_an_answer_that_does_not_read_back_is_found() -> None:
    ids = (*GOOD.token_ids[:-2], GOOD.token_ids[1], GOOD.token_ids[-1])
    assert codes(replace(GOOD, token_ids=ids)) == ["answer-altered"]


def test_nothing_trained_is_found() -> None:
    untrained = replace(GOOD, label_mask=(False,) * len(GOOD.label_mask))
    assert codes(untrained) == ["nothing-trained"]


def test_truncation_is_counted_and_said() -> None:
    (finding,) = truncated(["data:1", "data:2"], 64)
    assert (finding.code, finding.rows) == ("truncated", ("data:1", "data:2"))
    assert finding.message == "prompts cut to fit max_length: 64 tokens (2: data:1, data:2)"
    assert truncated([], 64) == []
