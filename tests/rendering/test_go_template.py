"""Chat templates in Go's terms, as Go itself filled them in (tests/rendering/go)."""

import json

import pytest

from kilotune.errors import KilotuneError
from kilotune.rendering.go_template import go_template
from kilotune.rendering.probe import chat_template
from tests.rendering.go.record import CONVERSATIONS, RECORD, plain, translated
from tests.rendering.kinds import KINDS, Kind
from tests.support.tiny import byte_tokenizer, word_tokenizer

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_go_writes_what_the_chat_template_writes(kind: Kind) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[kind.name]
    template, text = translated(kind)
    assert text == recorded["template"], "record again: python -m tests.rendering.go.record"
    bos = template.tokenizer.bos_token if go_template(template).adds_bos else ""
    for messages, made in zip(CONVERSATIONS, recorded["texts"], strict=True):
        assert bos + made == template.prompt_text(messages)
        if not template.arguments and not template.opening.asked and template.takes_system:
            assert bos + made == template.tokenizer.apply_chat_template(
                plain(messages), tokenize=False, add_generation_prompt=True
            )


def test_what_go_cannot_do_is_said() -> None:
    gemma, qwen = (
        go_template(chat_template(byte_tokenizer(kind.source, **kind.settings())))
        for kind in (BY_NAME["gemma"], BY_NAME["qwen2_5"])
    )
    assert (gemma.strips, gemma.adds_bos) == (True, True)
    assert (qwen.strips, qwen.adds_bos) == (False, False)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        # Mistral's later ones put the system message before the last user's words.
        (
            "{% set n = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
            "{% set n.last = loop.index %}{% endif %}{% endfor %}{% for m in messages %}"
            "{% if m.role == 'user' %}[INST] {% if loop.index == n.last and messages[0].role == "
            "'system' %}{{ messages[0].content }}\n\n{% endif %}{{ m.content }} [/INST]"
            "{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}{% endfor %}",
            "moves messages",
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}<u>{{ loop.index }}: {% else %}<a>"
            "{% endif %}{{ m.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<a>{% endif %}",
            "writes now one text, now another",
        ),
    ],
    ids=["system-last", "numbered"],
)
def test_a_template_that_cannot_be_translated_is_refused(source: str, why: str) -> None:
    template = chat_template(
        byte_tokenizer(source, special=("<pad>", "<u>", "<a>", "</s>"), eos_token="</s>")
    )
    with pytest.raises(KilotuneError, match=why) as caught:
        go_template(template)
    assert "--to vllm" in caught.value.fix


def test_a_beginning_that_the_tokenizer_would_add_unasked_is_refused() -> None:
    source = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    with pytest.raises(KilotuneError, match="does not begin with '<s>'"):
        go_template(chat_template(word_tokenizer(source, ["▁Hello"])))


def test_letters_that_a_modelfile_would_drop_are_spelt_out() -> None:
    source = (
        "{% for m in messages %}\u200b{{ m.role }}\u00a0{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}\u200bassistant\u00a0{% endif %}"
    )
    text = go_template(chat_template(byte_tokenizer(source, special=("<pad>", "</s>")))).text
    assert text.replace("\n", "").isprintable()
    assert r'"</s>\U0000200bassistant\U000000a0"' in text
