from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from kilotune.data.example import Example, Message, Origin
from kilotune.rendering import sandbox
from kilotune.rendering.label_mask import render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template_checks import check_renderings
from tests.support.tiny import CHATML, byte_tokenizer

# No special tokens: their text in a message is for the checks of the data.
CONTENT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda text: "<|" not in text
)


def conversation(*turns: str) -> Example:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns))
    return Example("data:1", messages, Origin("a", 1), label=turns[-1])


def trained_text(example: Example, template_text: str = CHATML) -> str:
    template = chat_template(byte_tokenizer(template_text))
    rendering = render(template, example)
    pairs = zip(rendering.token_ids, rendering.label_mask, strict=True)
    return template.tokenizer.decode([token for token, label in pairs if label])


def test_the_answer_and_its_end_are_trained_and_nothing_else() -> None:
    template = chat_template(byte_tokenizer())
    rendering = render(template, conversation("hi", "yes"))
    # 3 special tokens and "user\nhi", "\n", "assistant\n", one token a byte.
    prompt = 1 + len("user\nhi") + 1 + 1 + 1 + len("assistant\n")
    assert rendering.prompt_length == prompt
    assert rendering.label_mask == (False,) * prompt + (True,) * (len("yes") + 1)
    assert template.tokenizer.decode(rendering.token_ids[prompt:]) == "yes<|im_end|>"


def test_every_assistant_turn_is_trained() -> None:
    example = conversation("hi", "one", "and", "two")
    assert trained_text(example) == "one<|im_end|>two<|im_end|>"


@pytest.mark.parametrize(
    ("untrained", "text"),
    [
        ({1}, "two<|im_end|>six<|im_end|>"),
        ({3}, "one<|im_end|>six<|im_end|>"),
        ({1, 5}, "two<|im_end|>"),
    ],
)
def test_answers_that_are_not_to_be_trained_are_context(untrained: set[int], text: str) -> None:
    whole = conversation("hi", "one", "and", "two", "then", "six")
    messages = tuple(
        replace(message, trained=place not in untrained)
        for place, message in enumerate(whole.messages)
    )
    example = replace(whole, messages=messages)
    assert trained_text(example) == text
    template = chat_template(byte_tokenizer())
    rendering = render(template, example)
    assert rendering.token_ids == render(template, whole).token_ids
    assert check_renderings(template, [example], [rendering]) == []


def test_a_template_without_an_end_gets_the_tokenizers() -> None:
    plain = (
        "{% for m in messages %}{% if m['role'] == 'user' %}Question: {{ m['content'] }}\n"
        "{% else %}Answer: {{ m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Answer: {% endif %}"
    )
    assert trained_text(conversation("hi", "yes"), plain) == "yes<|im_end|>"


def test_a_template_that_ends_turns_with_another_token_than_eos() -> None:
    tokenizer = byte_tokenizer(eos_token="<|endoftext|>")
    template = chat_template(tokenizer)
    assert tokenizer.decode([template.stop_id]) == "<|im_end|>"
    rendering = render(template, conversation("hi", "yes"))
    assert rendering.token_ids[-1] == template.stop_id


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    # Drops the first answer as soon as another turn follows.
    forgetful = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] if loop.last or m['role'] == 'user' else '' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = chat_template(byte_tokenizer(forgetful))
    example = conversation("hi", "one", "and", "two")
    with pytest.raises(RenderError, match="rewrites earlier turns"):
        render(template, example)
    rendering = render(template, example, "last")
    assert template.tokenizer.decode(rendering.token_ids[-4:]) == "two<|im_end|>"


def test_an_unknown_character_ends_no_answer_and_is_an_error() -> None:
    letters = {char: place for place, char in enumerate(map(chr, range(10, 127)))}
    core = Tokenizer(models.BPE(vocab={**letters, "<unk>": 117}, merges=[], unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    core.add_special_tokens(["<unk>", "<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="<|im_end|>", pad_token="<|im_start|>"
    )
    tokenizer.chat_template = CHATML
    template = chat_template(tokenizer)
    example = conversation("hi", "naïve")
    rendering = render(template, example)
    (span,) = rendering.spans()
    assert tokenizer.decode(rendering.token_ids[slice(*span)]) == "na<unk>ve<|im_end|>"
    found = check_renderings(template, [example], [rendering])
    assert [finding.code for finding in found] == ["answer-altered"]


@given(st.lists(CONTENT, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0))
def test_prompts_are_prefixes_and_answers_read_back(turns: list[str]) -> None:
    template = chat_template(byte_tokenizer())
    example = conversation(*turns)
    rendering = render(template, example)
    assert list(rendering.token_ids[: rendering.prompt_length]) == template.prompt_ids(
        example.prompt
    )
    assert len(rendering.token_ids) == len(rendering.label_mask)
    assert trained_text(example) == "".join(f"{turn}<|im_end|>" for turn in turns[1::2])
    assert check_renderings(template, [example], [rendering]) == []


def test_the_work_on_a_conversation_grows_with_its_turns_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    template = chat_template(byte_tokenizer())
    rendered: list[int] = []
    apply = sandbox.rendered

    def counted(source: str, *, messages: Any, **more: Any) -> str:
        rendered.append(len(messages))
        return apply(source, messages=messages, **more)

    def work(turns: int, text: str) -> int:
        rendered.clear()
        example = conversation(*[f"{text}{n}" for n in range(turns)])
        rendering = render(template, example)
        assert check_renderings(template, [example], [rendering]) == []
        return sum(rendered)

    monkeypatch.setattr("kilotune.rendering.template.rendered", counted)
    for turns in (20, 60):
        work(turns, "a")  # the forms are known now
    assert work(60, "b") <= 3 * work(20, "c") + 3
    assert work(60, "d") <= 2 * 60


def test_earlier_turns_are_compared_with_their_own_text_where_it_has_tags() -> None:
    # Looks for a tag in the newest message, and then leaves the answers out.
    template_text = CHATML.replace(
        "{{ m['content'] }}",
        "{{ '' if m.role == 'assistant' and '<quiet>' in messages[-1].content else m['content'] }}",
    )
    template = chat_template(byte_tokenizer(template_text))
    assert len(render(template, conversation("q", "one", "r", "two")).spans()) == 2
    with pytest.raises(RenderError, match="rewrites earlier turns"):
        render(template, conversation("q", "one", "<quiet>r", "two", "s", "three"))
