"""Every kind of chat template, on real vocabularies and on one that can be counted by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest

from kilotune.data.example import Example, Image, Message
from kilotune.errors import KilotuneError
from kilotune.rendering.label_mask import Rendering, render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording
from tests.rendering.kinds import KINDS, MULTI, ROUNDS, SINGLE, WITH_SYSTEM, Expected, Kind, example
from tests.support.tiny import byte_tokenizer, word_tokenizer

TEMPLATES = Path(__file__).parent / "templates"
BY_NAME = {kind.name: kind for kind in KINDS}
AS_IT_IS = Wording("", "{text}")
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def bytes_template(kind: Kind, **settings: Any) -> ChatTemplate:
    return chat_template(byte_tokenizer(kind.source, **kind.settings()), **settings)


def checked(template: ChatTemplate, *examples: Example, **settings: Any) -> Rendered:
    return render_examples(template, AS_IT_IS, examples, max_length=4096, **settings)


def codes(rendered: Rendered) -> set[str]:
    return {finding.code for finding in rendered.findings}


def trained_parts(template: ChatTemplate, rendering: Rendering) -> tuple[str, ...]:
    ids = rendering.token_ids
    return tuple(template.tokenizer.decode(ids[a:b]) for a, b in rendering.spans())


def as_expected(template: ChatTemplate, rendering: Rendering, expected: Expected) -> None:
    assert template.tokenizer.decode(rendering.token_ids) == expected.text
    assert trained_parts(template, rendering) == expected.trained


def cases(kind: Kind) -> list[tuple[Example, Expected, str]]:
    return [
        (SINGLE, kind.single, "auto"),
        (WITH_SYSTEM, kind.system, "auto"),
        (MULTI, kind.multi, "last" if kind.trains_last else "all_assistant"),
    ]


@every_kind
def test_text_mask_and_counts_are_those_written_by_hand(kind: Kind) -> None:
    template = bytes_template(kind)
    for given, expected, train_on in cases(kind):
        rendering = render(template, given, train_on)  # type: ignore[arg-type]
        as_expected(template, rendering, expected)
        assert (len(rendering.token_ids), rendering.trained) == expected.length
        prompt = template.prompt_ids(given.prompt)
        assert rendering.token_ids[: rendering.prompt_length] == tuple(prompt)


@pytest.fixture(scope="module")
def real(qwen_base: Any, smollm2_tokenizer: Any) -> dict[str, Any]:
    """Real vocabularies, with the control tokens of every kind besides."""
    every = list(dict.fromkeys(token for kind in KINDS for token in kind.special))
    copies = {"qwen": copy.deepcopy(qwen_base), "smollm2": copy.deepcopy(smollm2_tokenizer)}
    for tokenizer in copies.values():
        tokenizer.add_special_tokens({"extra_special_tokens": every})
    return copies


# SmolLM2 cuts two line breaks before a word in two, and at the end of a prompt makes them one.
CUT_AT_THE_BORDER = {("smollm2", "qwen3"), ("smollm2", "llama3")}


@every_kind
@pytest.mark.parametrize("vocabulary", ["qwen", "smollm2"])
def test_real_vocabularies_give_the_same_text_and_mask(
    kind: Kind, vocabulary: str, real: dict[str, Any]
) -> None:
    tokenizer = real[vocabulary]
    tokenizer.bos_token = kind.named.get("bos_token", "<|endoftext|>")
    tokenizer.eos_token = kind.named.get("eos_token", kind.special[-1])
    template = chat_template(tokenizer, str(TEMPLATES / f"{kind.name}.jinja"))
    for given, expected, train_on in cases(kind):
        rendering = render(template, given, train_on)  # type: ignore[arg-type]
        as_expected(template, rendering, expected)
        plain = tokenizer.encode(expected.text, add_special_tokens=False)
        same = list(rendering.token_ids) == plain
        assert same == ((vocabulary, kind.name) not in CUT_AT_THE_BORDER)
        prompt = template.prompt_ids(given.prompt)
        assert rendering.token_ids[: rendering.prompt_length] == tuple(prompt)


@pytest.mark.parametrize("name", ["llama2", "mistral"])
def test_words_keep_their_space_in_vocabularies_made_by_sentencepiece(name: str) -> None:
    kind = BY_NAME[name]
    template = chat_template(word_tokenizer(kind.source, ["▁Hello", "▁[INST]", "▁4"]))
    rendering = render(template, SINGLE)
    plain = template.tokenizer.encode(kind.single.text, add_special_tokens=False)
    assert list(rendering.token_ids) == plain
    trained = rendering.token_ids[rendering.prompt_length :]
    names = template.tokenizer.convert_ids_to_tokens(trained)
    assert names == (["▁Hello", "!", "▁", "</s>"] if name == "llama2" else ["▁Hello", "!", "</s>"])
    assert codes(checked(template, SINGLE)) == set()
    spelling = example(Message("user", "</s>Hi<s>"), Message("assistant", "Hello</s>"))
    found = checked(template, spelling)
    assert codes(found) == {"special-in-text"}
    (rendering,) = found.renderings
    text = template.tokenizer.decode(rendering.token_ids)
    space = " " if name == "llama2" else ""
    assert text == f"<s> [INST] </s>Hi<s> [/INST] Hello</s>{space}</s>"
    assert [rendering.token_ids.count(i) for i in (1, 2)] == [1, 1]


@every_kind
def test_what_is_said_of_each_kind_is_known(kind: Kind) -> None:
    train_on = "last" if kind.trains_last else "all_assistant"
    rendered = checked(bytes_template(kind), SINGLE, WITH_SYSTEM, MULTI, train_on=train_on)
    assert len(rendered.renderings) == 3
    assert codes(rendered) == set(kind.remarks)
    assert not [f for f in rendered.findings if f.severity == "error"]


@every_kind
def test_the_last_answer_alone_can_be_trained_in_every_kind(kind: Kind) -> None:
    template = bytes_template(kind)
    rendering = render(template, MULTI, "last")
    as_expected(template, rendering, Expected(kind.multi.text, kind.multi.trained[-1:], (0, 0)))


@every_kind
def test_completion_adds_what_the_template_writes_behind_the_end(kind: Kind) -> None:
    template = bytes_template(kind)
    (trained,) = trained_parts(template, render(template, MULTI, "completion"))
    whole = template.text(MULTI.messages)
    assert trained.startswith(kind.multi.trained[-1])
    assert template.tokenizer.decode(template.prompt_ids(MULTI.prompt)) + trained == (
        whole if kind.name != "glm4" else whole + "<|endoftext|>"
    )


@every_kind
def test_control_tokens_in_messages_stay_ordinary_text(kind: Kind) -> None:
    template = bytes_template(kind)
    control = template.encoder.special.control
    plain = render(template, WITH_SYSTEM)
    spelled = "".join(kind.special)
    system, user, answer = WITH_SYSTEM.messages
    marked = example(
        Message("system", system.text + spelled),
        Message("user", spelled + user.text + spelled),
        Message("assistant", f"a{spelled}b"),
    )
    rendering = render(template, marked)

    def count(ids: tuple[int, ...]) -> int:
        return sum(token in control for token in ids)

    assert count(rendering.token_ids) == count(plain.token_ids)
    (trained,) = trained_parts(template, rendering)
    assert trained == kind.system.trained[0].replace(answer.text, f"a{spelled}b")
    prompt = template.prompt_ids(marked.prompt)
    assert rendering.token_ids[: rendering.prompt_length] == tuple(prompt)
    found = checked(template, marked)
    assert "special-in-text" in codes(found)
    assert not [f for f in found.findings if f.severity == "error"]


@every_kind
def test_a_double_beginning_is_an_error_and_a_missing_one_is_said(kind: Kind) -> None:
    if not kind.adds_bos or kind.name == "llama2":  # which begins anew at each turn
        assert "double-bos" not in codes(checked(bytes_template(kind), MULTI, train_on="last"))
        return
    doubled = byte_tokenizer("{{ bos_token }}" + kind.source, **kind.settings())
    assert "double-bos" in codes(checked(chat_template(doubled), SINGLE))
    without = byte_tokenizer(kind.source.replace("{{- bos_token -}}", ""), **kind.settings())
    assert "missing-bos" in codes(checked(chat_template(without), SINGLE))


@pytest.mark.parametrize("name", ["llama2", "mistral", "gemma"])
def test_consecutive_roles_are_refused_in_the_templates_own_words(name: str) -> None:
    user, answer = ROUNDS[:2]
    twice = example(user, user, answer, row=7)
    rendered = checked(bytes_template(BY_NAME[name]), SINGLE, twice)
    (finding,) = [f for f in rendered.findings if f.code == "template-refuses"]
    assert finding.severity == "error"
    assert finding.rows == ("data:7",)
    words = {"llama2": "user, assistant", "mistral": "only an assistant", "gemma": "take turns"}
    assert words[name] in finding.message
    assert len(rendered.renderings) == 1


def test_earlier_turns_that_lose_their_thoughts_are_an_error_with_its_way_out() -> None:
    rendered = checked(bytes_template(BY_NAME["qwen3"]), MULTI)
    (finding,) = [f for f in rendered.findings if f.severity == "error"]
    assert (finding.code, finding.rows) == ("turns-rewritten", ("data:1",))
    assert "train_on: last" in finding.fix


def test_thoughts_are_trained_where_thinking_is_asked_for() -> None:
    template = bytes_template(BY_NAME["qwen3"], arguments={"enable_thinking": True})
    answer = "<think>\nEasy.\n</think>\n\n4"
    given = example(ROUNDS[2], Message("assistant", answer))
    rendered = checked(template, given)
    assert codes(rendered) == set()
    (rendering,) = rendered.renderings
    assert trained_parts(template, rendering) == (f"{answer}<|im_end|>",)
    assert template.tokenizer.decode(template.prompt_ids(given.prompt)) == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_thoughts_elsewhere_are_an_error_that_says_how_to_train_them() -> None:
    given = example(ROUNDS[2], Message("assistant", "<think>\nEasy.\n</think>\n\n4"))
    (finding,) = [
        f
        for f in checked(bytes_template(BY_NAME["qwen3"]), given).findings
        if f.severity == "error"
    ]
    assert finding.code == "answer-rewritten"
    assert "enable_thinking: true" in finding.fix
    dropping = checked(bytes_template(BY_NAME["deepseek_r1"]), given)
    assert "answer-rewritten" in codes(dropping)


def test_an_opening_that_only_generation_has_is_left_out_of_both_and_said() -> None:
    template = bytes_template(BY_NAME["deepseek_r1"])
    assert template.text(SINGLE.prompt, generation_prompt=True).endswith("<think>\n")
    assert template.tokenizer.decode(template.prompt_ids(SINGLE.prompt)).endswith("<｜Assistant｜>")
    (finding,) = template.findings
    assert finding.code == "opening-differs"
    assert repr("<think>\n") in finding.message


def test_an_opening_that_depends_on_the_conversation_is_refused() -> None:
    moody = BY_NAME["generation"].source.replace(
        "'<|im_start|>assistant\\n' -}}{%- endif -%}",
        "'<|im_start|>assistant\\n' + messages[-1].content[:2] * messages | length -}}"
        "{%- endif -%}",
    )
    with pytest.raises(KilotuneError, match="one way for training and another"):
        chat_template(byte_tokenizer(moody))


def test_a_difference_between_openings_is_told_in_whole_tags() -> None:
    tagged = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<thought>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<thinks>{% endif %}"
    )
    template = chat_template(byte_tokenizer(tagged))
    assert (template.opening.asked, template.opening.told) == ("<thinks>", "<thought>")
    rendering = render(template, SINGLE)
    assert trained_parts(template, rendering) == ("Hello!<|im_end|>",)
    prompt = template.tokenizer.decode(template.prompt_ids(SINGLE.prompt))
    assert prompt.endswith("assistant\n<thought>")


def test_a_system_message_that_is_dropped_once_answered_counts_as_refused() -> None:
    # It goes into the last message, and only a user's.
    late = (
        "{%- for m in messages if m.role != 'system' -%}"
        "{{- '<|im_start|>' + m.role + '\\n' -}}"
        "{%- if loop.last and m.role == 'user' and messages[0].role == 'system' -%}"
        "{{- messages[0].content + '\\n' -}}{%- endif -%}"
        "{{- m.content + '<|im_end|>\\n' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )
    template = chat_template(byte_tokenizer(late))
    assert not template.takes_system
    rendered = checked(template, WITH_SYSTEM)
    assert codes(rendered) == {"system-moved"}
    text = template.tokenizer.decode(rendered.renderings[0].token_ids)
    assert text.startswith("<|im_start|>user\nBe brief.\n\nHi<|im_end|>")


def test_trimmed_answers_are_trained_as_trimmed_and_said() -> None:
    template = bytes_template(BY_NAME["gemma"])
    rendered = checked(template, example(ROUNDS[0], Message("assistant", " Hello! \n")))
    assert trained_parts(template, rendered.renderings[0]) == ("Hello!<end_of_turn>",)
    assert "answer-trimmed" in codes(rendered)
    kept = bytes_template(BY_NAME["phi4"])
    rendered = checked(kept, example(ROUNDS[0], Message("assistant", " Hello! \n")))
    assert trained_parts(kept, rendered.renderings[0]) == (" Hello! \n<|im_end|>",)
    assert codes(rendered) == set()


def test_a_template_that_rewrites_answers_is_an_error() -> None:
    shouting = BY_NAME["phi4"].source.replace("m.content", "m.content | upper")
    with pytest.raises(KilotuneError, match="otherwise than it stands"):
        chat_template(byte_tokenizer(shouting, special=BY_NAME["phi4"].special))
    picky = BY_NAME["phi4"].source.replace("m.content", "m.content.replace('!', '')")
    template = chat_template(byte_tokenizer(picky, special=BY_NAME["phi4"].special))
    rendered = checked(template, SINGLE, example(ROUNDS[2], ROUNDS[3], row=2))
    (finding,) = rendered.findings
    assert (finding.code, finding.rows) == ("answer-rewritten", ("data:1",))


def test_a_users_text_may_be_rewritten_unless_it_spells_control_tokens() -> None:
    cleaning = BY_NAME["phi4"].source.replace(
        "m.content", "(m.content if m.role == 'assistant' else m.content.replace('?', '.'))"
    )
    template = chat_template(byte_tokenizer(cleaning, special=BY_NAME["phi4"].special))
    rendered = checked(template, example(*ROUNDS[2:]))
    assert codes(rendered) == set()
    assert "2+2.<|im_end|>" in template.tokenizer.decode(rendered.renderings[0].token_ids)
    spelling = example(Message("user", "what is <|im_end|>?"), ROUNDS[3])
    (finding,) = checked(template, spelling).findings
    assert (finding.code, finding.severity) == ("special-in-rewritten", "error")


def test_roles_that_a_template_leaves_out_are_an_error_with_their_place() -> None:
    given = example(Message("tool", "42"), *ROUNDS[:2])
    (finding, *_) = checked(bytes_template(BY_NAME["qwen2_5"]), given).findings
    assert finding.code == "message-dropped"
    assert "message 1 (tool)" in finding.message


def test_images_stand_where_the_parts_say_one_placeholder_each() -> None:
    template = bytes_template(BY_NAME["qwen2_vl"])
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    assert template.image_text == place
    pictures = (Image("a.png"), Image("b.png"))
    message = Message("user", ("See ", pictures[0], " and ", pictures[1], "<|image_pad|>"))
    rendered = checked(template, example(message, ROUNDS[1]))
    (rendering,) = rendered.renderings
    assert rendering.images == pictures
    assert f"See {place} and {place}<|image_pad|><|im_end|>" in template.tokenizer.decode(
        rendering.token_ids
    )
    pad = template.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert rendering.token_ids.count(pad) == 2
    assert codes(rendered) == {"special-in-text", "images-not-counted"}


def test_images_are_an_error_where_the_template_has_no_place_for_them() -> None:
    seen = example(Message("user", (Image("a.png"), "What?")), ROUNDS[1])
    for kind in KINDS:
        if kind.name != "qwen2_vl":
            assert "images-unsupported" in codes(checked(bytes_template(kind), seen)), kind.name


def test_a_template_that_wants_parts_gets_parts() -> None:
    wanting = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = chat_template(byte_tokenizer(wanting))
    assert template.writes_parts
    rendering = render(template, SINGLE)
    as_expected(template, rendering, BY_NAME["generation"].single)
