"""Whatever people say to each other, in every kind of template: what must hold of its rendering."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilotune.data.example import Example, Message
from kilotune.rendering.label_mask import render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.template_checks import check_renderings
from tests.rendering.kinds import KINDS, example
from tests.support.tiny import CHATML, byte_tokenizer

# Every control token of every kind, what templates write around them, and white space.
MARKS = sorted({token for kind in KINDS for token in kind.special})
PIECES = [*MARKS, "[INST]", "[/INST]", "<<SYS>>", "assistant", "Answer:", "\n", " ", "\n\n", "<"]
CONTENT = st.lists(
    st.one_of(st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(PIECES)),
    max_size=5,
).map("".join)
SUPPLIED = ("chatml", "plain")


@st.composite
def conversations(draw: st.DrawFn) -> Example:
    # Prompts say something (the checks of the data see to that); answers may be empty.
    said = CONTENT.filter(str.strip)
    system = [Message("system", draw(said))] if draw(st.booleans()) else []
    turns = draw(st.lists(st.tuples(said, CONTENT), min_size=1, max_size=3))
    rounds = [
        m for user, said in turns for m in (Message("user", user), Message("assistant", said))
    ]
    return example(*system, *rounds)


def templates() -> dict[str, ChatTemplate]:
    found = {k.name: chat_template(byte_tokenizer(k.source, **k.settings())) for k in KINDS}
    bare = byte_tokenizer(None, eos_token="<|endoftext|>")
    return found | {name: chat_template(bare, name) for name in SUPPLIED}


TEMPLATES = templates()


def control_tokens(template: ChatTemplate, ids: Any) -> list[int]:
    return [token for token in ids if token in template.encoder.special.control]


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(talk=conversations(), train_on=st.sampled_from(["last", "all_assistant", "completion"]))
def test_prompts_are_prefixes_and_masks_cover_the_answers_with_their_ends(
    name: str, talk: Example, train_on: Any
) -> None:
    template = TEMPLATES[name]
    answers = [m.text for m in talk.messages if m.role == "assistant"]
    if name == "qwen3" and train_on == "all_assistant" and len(answers) > 1:
        with pytest.raises(RenderError, match="rewrites earlier turns"):
            render(template, talk, train_on)
        return
    rendering = render(template, talk, train_on)
    ids, spans = rendering.token_ids, rendering.spans()
    decode = template.tokenizer.decode

    # What generation starts from is exactly what comes before the last trained part.
    assert list(ids[: rendering.prompt_length]) == template.prompt_ids(talk.prompt)
    assert spans[-1] == (rendering.prompt_length, len(ids))

    # The trained parts are the answers and their ends, in order, and nothing else.
    wanted = answers if train_on == "all_assistant" else answers[-1:]
    assert len(spans) == len(wanted)
    for (start, end), answer in zip(spans, wanted, strict=True):
        stop = next(i for i in range(start, end) if ids[i] in template.encoder.special.control)
        assert decode(ids[start:stop]).strip() == answer.strip()
        assert stop == end - 1 or train_on == "completion"

    # As many control tokens, in the same order, as when people say nothing of the kind.
    calm = example(*(Message(m.role, "x") for m in talk.messages))
    assert control_tokens(template, ids) == control_tokens(
        template, render(template, calm, train_on).token_ids
    )

    # Nothing is lost: the ids read back as the template's own text, up to the last end.
    text = template.text(talk.messages)
    read = decode(ids)
    assert text.startswith(read) or read.startswith(text.rstrip()) or name in ("glm4", "plain")


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(talk=conversations())
def test_checks_find_nothing_wrong_with_any_conversation(name: str, talk: Example) -> None:
    template = TEMPLATES[name]
    found = check_renderings(template, [talk], [render(template, talk, "last")])
    assert [f.code for f in found if f.severity == "error"] == []


@pytest.mark.parametrize("vocabulary", ["qwen_base", "smollm2_tokenizer"])
@pytest.mark.parametrize("name", SUPPLIED)
@settings(max_examples=60, deadline=None)
@given(talk=conversations())
def test_real_vocabularies_keep_the_prompt_a_prefix(
    vocabulary: str, name: str, talk: Example, request: pytest.FixtureRequest
) -> None:
    template = chat_template(request.getfixturevalue(vocabulary), name)
    rendering = render(template, talk)
    prompt = template.prompt_ids(talk.prompt)
    assert list(rendering.token_ids[: rendering.prompt_length]) == prompt
    assert len(rendering.spans()) == sum(m.role == "assistant" for m in talk.messages)


@settings(max_examples=30, deadline=None)
@given(content=CONTENT)
def test_user_text_alone_never_changes_what_a_prompt_opens_with(content: str) -> None:
    template = chat_template(byte_tokenizer(CHATML))
    opening = template.encode("<|im_end|>\n<|im_start|>assistant\n")
    ids = template.prompt_ids([Message("user", content)])
    assert ids[-len(opening) :] == opening
    assert len(control_tokens(template, ids)) == 3
