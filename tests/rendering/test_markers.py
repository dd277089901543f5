"""Added tokens that the tokenizer does not call special: what each role's text may make of them."""

from typing import Any

import pytest

from kilotune.data.example import Example, Message
from kilotune.rendering.label_mask import Rendering, render
from kilotune.rendering.markers import markers
from kilotune.rendering.probe import chat_template
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording
from tests.rendering.kinds import KINDS, ROUNDS, SYSTEM, example
from tests.support.tiny import CHATML, byte_tokenizer

THOUGHTS = ["<think>", "</think>", "<tool_call>"]
WORDS = ["<table>", "</h2>", "naproxen", "\n\n\n", "  "]
# Both markers of a turn are added tokens like any other.
TURNS = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}<|over|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
)


def template_with(added: list[str], source: str = CHATML, **settings: Any) -> ChatTemplate:
    tokenizer = byte_tokenizer(source, **settings)
    tokenizer.add_tokens(added)
    return chat_template(tokenizer)


def checked(template: ChatTemplate, *examples: Example, **settings: Any) -> Rendered:
    wording = Wording("", "{text}")
    return render_examples(template, wording, examples, max_length=999, **settings)


def names(template: ChatTemplate, rendering: Rendering) -> list[str]:
    """The tokens of a rendering that were added to the vocabulary, in order."""
    added = template.tokenizer.added_tokens_decoder
    return [added[i].content for i in rendering.token_ids if i in added]


@pytest.mark.parametrize("role", ["user", "system"])
def test_what_others_say_holds_none_of_the_models_own_words_and_the_rows_are_named(
    role: str,
) -> None:
    template = template_with(THOUGHTS)
    said = "a <think>b</think> <<tool_call>>"
    question = [Message("system", said), ROUNDS[0]] if role == "system" else [Message("user", said)]
    found = checked(template, example(*ROUNDS), example(*question, ROUNDS[1], row=2))
    rendering = found.renderings[1]
    assert set(names(template, rendering)) == {"<|im_start|>", "<|im_end|>"}
    assert f"{role}\n{said}<|im_end|>" in template.tokenizer.decode(rendering.token_ids)
    (finding,) = found.findings
    assert (finding.code, finding.rows) == ("special-in-text", ("data:2",))


def test_answers_hold_the_models_own_words_as_tokens_and_nothing_is_said() -> None:
    template = template_with(THOUGHTS)
    answer = "<think>\nEasy.</think>4 <tool_call>"
    found = checked(template, example(ROUNDS[2], Message("assistant", answer)))
    assert found.findings == ()
    (rendering,) = found.renderings
    start, end = rendering.spans()[0]
    trained = rendering.token_ids[start:end]
    assert template.tokenizer.decode(trained) == f"{answer}<|im_end|>"
    assert names(template, rendering)[3:] == [*THOUGHTS, "<|im_end|>"]
    assert len(trained) == len("\nEasy.") + len("4 ") + 4


def test_answers_hold_them_beside_control_tokens_that_are_spelt_out() -> None:
    template = template_with(THOUGHTS)
    answer = "<|im_end|><think>x<|im_start|></think><|im_end|>4"
    found = checked(template, example(ROUNDS[2], Message("assistant", answer)))
    assert [finding.code for finding in found.findings] == ["special-in-text"]
    (rendering,) = found.renderings
    start, end = rendering.spans()[0]
    assert template.tokenizer.decode(rendering.token_ids[start:end]) == f"{answer}<|im_end|>"
    assert names(template, rendering)[3:] == ["<think>", "</think>", "<|im_end|>"]


def test_words_html_and_runs_of_spaces_stay_the_tokens_they_are_in_every_text() -> None:
    template = template_with([*THOUGHTS, *WORDS])
    assert markers(template) == ([], sorted(THOUGHTS))
    text = "x".join(WORDS)
    found = checked(template, example(Message("user", text), Message("assistant", text)))
    assert found.findings == ()
    inside = [name for name in names(template, found.renderings[0]) if "im_" not in name]
    assert inside == WORDS * 2


def test_a_turn_end_that_is_not_called_special_ends_answers() -> None:
    template = template_with(["<|turn|>", "<|over|>"], TURNS)
    assert template.tokenizer.decode([template.stop_id]) == "<|over|>"
    spelling = Message("assistant", "4<|over|><|turn|>")
    found = checked(template, example(SYSTEM, *ROUNDS[:3], spelling))
    assert {f.code for f in found.findings} == {"stop-differs", "special-in-text"}
    (rendering,) = found.renderings
    decode = template.tokenizer.decode
    assert [decode(rendering.token_ids[a:b]) for a, b in rendering.spans()] == [
        "Hello!<|over|>",
        "4<|over|><|turn|><|over|>",
    ]
    assert names(template, rendering) == ["<|turn|>", "<|over|>"] * 5
    assert list(rendering.token_ids[: rendering.prompt_length]) == template.prompt_ids(
        (SYSTEM, *ROUNDS[:3])
    )


@pytest.mark.parametrize("thinking", [None, True, False])
def test_thoughts_are_no_markers_of_turns_though_the_template_writes_them(
    thinking: bool | None,
) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == "qwen3"]
    tokenizer = byte_tokenizer(kind.source, **kind.settings())
    tokenizer.add_tokens(THOUGHTS)
    arguments = None if thinking is None else {"enable_thinking": thinking}
    template = chat_template(tokenizer, arguments=arguments)
    assert markers(template) == ([], sorted(THOUGHTS))
    answer = "<think>\nEasy.\n</think>\n\n4" if thinking else "4"
    rendering = render(
        template, example(Message("user", "</think>?"), Message("assistant", answer))
    )
    assert names(template, rendering) == [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
        "<think>",
        "</think>",
        "<|im_end|>",
    ]
    first = rendering.token_ids.index(tokenizer.convert_tokens_to_ids("<think>"))
    assert rendering.label_mask[first] == bool(thinking)


def test_a_role_whose_marker_is_not_called_special_cannot_be_spelt_in_an_answer() -> None:
    source = TURNS.replace("<|turn|>{{ m.role }}", "<|{{ m.role }}|>").replace(
        "<|turn|>assistant", "<|assistant|>"
    )
    template = template_with(["<|user|>", "<|assistant|>", "<|over|>"], source)
    assert markers(template) == (["<|assistant|>", "<|over|>", "<|user|>"], [])
    rendering = render(
        template, example(ROUNDS[0], Message("assistant", "a<|assistant|>b<|user|>"))
    )
    assert names(template, rendering) == ["<|user|>", "<|over|>", "<|assistant|>", "<|over|>"]
