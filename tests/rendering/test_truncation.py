"""What goes first when an example is too long, and what never goes."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kilotune.data.example import Example, Message
from kilotune.rendering import sandbox
from kilotune.rendering.label_mask import render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.truncation import fit
from kilotune.rendering.wording import Wording
from tests.rendering.kinds import SYSTEM, example
from tests.support.tiny import CHATML, byte_tokenizer

TEMPLATE = chat_template(byte_tokenizer())
AS_IT_IS = Wording("", "{text}")
ROUND = [(Message("user", f"question {n}"), Message("assistant", f"answer {n}")) for n in range(3)]
LONG = example(SYSTEM, *ROUND[0], *ROUND[1], *ROUND[2])


def length(given: Example) -> int:
    return len(render(TEMPLATE, given).token_ids)


def rendered(*examples: Example, max_length: int) -> Rendered:
    return render_examples(TEMPLATE, AS_IT_IS, examples, max_length=max_length)


def test_what_fits_is_left_alone() -> None:
    assert fit(TEMPLATE, AS_IT_IS, LONG, length(LONG)) == (LONG, False)


def test_the_oldest_turns_go_first_and_the_system_message_stays() -> None:
    cut, was_cut = fit(TEMPLATE, AS_IT_IS, LONG, length(LONG) - 1)
    assert was_cut
    assert cut.messages == (SYSTEM, *ROUND[1], *ROUND[2])
    cut, _ = fit(TEMPLATE, AS_IT_IS, LONG, length(cut) - 1)
    assert cut.messages == (SYSTEM, *ROUND[2])


def test_then_the_end_of_the_last_text_and_never_the_answer() -> None:
    shortest = length(example(SYSTEM, *ROUND[2]))
    cut, _ = fit(TEMPLATE, AS_IT_IS, LONG, shortest - 4)
    assert cut.messages == (SYSTEM, Message("user", "quest" + "i"), ROUND[2][1])
    assert length(cut) == shortest - 4


@pytest.mark.parametrize("limit", [80, 75, 70, 65])
def test_the_whole_answer_and_its_end_are_trained_however_short_it_gets(limit: int) -> None:
    (rendering,) = rendered(LONG, max_length=limit).renderings
    assert len(rendering.token_ids) <= limit
    start, end = rendering.spans()[-1]
    assert TEMPLATE.tokenizer.decode(rendering.token_ids[start:end]) == "answer 2<|im_end|>"


def test_cuts_are_counted_and_answers_that_do_not_fit_are_errors_all_together() -> None:
    short = example(*ROUND[0], row=2)
    big = [
        example(ROUND[0][0], Message("assistant", "a" * 99), row=row) for row in (3, 4)
    ]  # fmt: skip
    found = rendered(LONG, short, *big, max_length=70)
    error, warning = found.findings
    assert (error.code, error.severity, error.rows) == ("too-long", "error", ("data:3", "data:4"))
    assert (warning.code, warning.rows) == ("truncated", ("data:1",))
    assert len(found.renderings) == 2
    with pytest.raises(RenderError, match="max_length 70") as caught:
        fit(TEMPLATE, AS_IT_IS, big[0], 70)
    assert caught.value.where == "chat.jsonl:3"


def test_prompts_without_an_answer_are_cut_in_the_same_way() -> None:
    asked = example(*LONG.messages[:-1])
    cut, was_cut = fit(TEMPLATE, AS_IT_IS, asked, 60)
    assert was_cut
    assert cut.messages == (SYSTEM, ROUND[2][0])
    assert len(TEMPLATE.prompt_ids(cut.messages)) < 60


def conversation(sizes: list[int]) -> Example:
    roles = ("user", "assistant")
    return example(SYSTEM, *(Message(roles[i % 2], "x" * size) for i, size in enumerate(sizes)))


@settings(max_examples=40, deadline=None)
@given(
    rounds=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=9),
    share=st.floats(0.2, 1.0),
)
def test_no_more_turns_go_than_must(rounds: list[tuple[int, int]], share: float) -> None:
    talk = conversation([size for each in rounds for size in each])
    limit = max(130, int(share * length(talk)))
    one_by_one = next(
        shorter
        for first in range(1, len(talk.messages), 2)  # the system message is the first
        if length(shorter := example(SYSTEM, *talk.messages[first:])) <= limit
        or first == len(talk.messages) - 2
    )
    assume(length(one_by_one) <= limit)
    cut, was_cut = fit(TEMPLATE, AS_IT_IS, talk, limit)
    assert cut.messages == (talk if length(talk) <= limit else one_by_one).messages
    assert was_cut == (length(talk) > limit)


def test_a_long_conversation_is_cut_in_a_few_renderings(monkeypatch: pytest.MonkeyPatch) -> None:
    template = chat_template(byte_tokenizer())
    calls: list[int] = []
    apply = sandbox.rendered

    def counted(source: str, *, messages: Any, **more: Any) -> str:
        calls.append(len(messages))
        return apply(source, messages=messages, **more)

    monkeypatch.setattr("kilotune.rendering.template.rendered", counted)
    cut, _ = fit(template, AS_IT_IS, conversation([7 + n % 20 for n in range(200)]), 900)
    assert 30 < len(cut.messages) < 40
    assert len(calls) <= 20


@pytest.mark.parametrize("limit", [80, 90, 110])
def test_what_is_trained_behind_the_end_fits_too(limit: int) -> None:
    tail = CHATML.replace("<|im_end|>\n", "<|im_end|>{{ '~' * 9 }}\n")
    template = chat_template(byte_tokenizer(tail))
    found = render_examples(template, AS_IT_IS, [LONG], max_length=limit, train_on="completion")
    (rendering,) = found.renderings
    assert limit - 35 < len(rendering.token_ids) <= limit
    start, end = rendering.spans()[-1]
    trained = template.tokenizer.decode(rendering.token_ids[start:end])
    assert trained == f"answer 2<|im_end|>{'~' * 9}\n"
