"""Templates for models that have none, by hand and on Qwen's real vocabulary."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.rendering.label_mask import Rendering, render
from kilotune.rendering.probe import chat_template
from kilotune.rendering.renderings import render_examples
from kilotune.rendering.supplied import choose_template
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording
from tests.rendering.kinds import MULTI, ROUNDS, SINGLE, SYSTEM, WITH_SYSTEM, example
from tests.support.tiny import CHATML, byte_tokenizer, word_tokenizer

CODES = {"template-chosen", "pad-is-stop", "stop-differs"}


def read(template: ChatTemplate, rendering: Rendering) -> tuple[str, list[str]]:
    ids, decode = rendering.token_ids, template.tokenizer.decode
    return decode(ids), [decode(ids[start:end]) for start, end in rendering.spans()]


def test_the_models_own_template_comes_first() -> None:
    assert chat_template(byte_tokenizer(CHATML)).source == CHATML
    assert chat_template(byte_tokenizer(CHATML), "plain").source != CHATML


def test_a_base_model_with_the_markers_gets_chatml_and_is_told(qwen_base: Any) -> None:
    template = chat_template(qwen_base)
    assert [f.code for f in template.findings] == ["template-chosen", "stop-differs"]
    assert "'chatml'" in template.findings[0].message
    assert template.stop_id == 151645
    text, trained = read(template, render(template, example(SYSTEM, *MULTI.messages)))
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>"
    )
    assert trained == ["Hello!<|im_end|>", "4<|im_end|>"]


def test_plain_separators_are_words_the_model_knows(qwen_base: Any) -> None:
    template = chat_template(qwen_base, "plain")
    assert template.findings == ()
    text, trained = read(template, render(template, example(SYSTEM, *MULTI.messages)))
    assert text == (
        "Be brief.\n\nQuestion: Hi\nAnswer: Hello!<|endoftext|>\n\n"
        "Question: 2+2?\nAnswer: 4<|endoftext|>"
    )
    assert trained == [" Hello!<|endoftext|>", " 4<|endoftext|>"]
    rendering = render(template, SINGLE)
    # The answer's first word is the token that it is in running text, with its space.
    assert qwen_base.decode([rendering.token_ids[rendering.prompt_length]]) == " Hello"
    assert list(rendering.token_ids) == qwen_base.encode(
        "Question: Hi\nAnswer: Hello!<|endoftext|>"
    )
    assert template.encoder.special.control.intersection(rendering.token_ids) == {151643}


def test_a_base_model_without_the_markers_gets_plain_separators() -> None:
    bare = byte_tokenizer(None, special=["<pad>", "</s>"])
    template = chat_template(bare)
    assert "'plain'" in template.findings[0].message
    assert read(template, render(template, WITH_SYSTEM)) == (
        "Be brief.\n\nQuestion: Hi\nAnswer: Hello!</s>",
        [" Hello!</s>"],
    )


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_tokenizer_that_wants_a_beginning_gets_exactly_one(name: str) -> None:
    special = ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    bare = byte_tokenizer(None, special=special, bos_token="<s>", adds_bos=True)
    template = chat_template(bare, name)
    rendered = render_examples(template, Wording("", "{text}"), [MULTI], max_length=999)
    assert rendered.findings == ()
    (rendering,) = rendered.renderings
    assert rendering.token_ids[0] == bare.bos_token_id
    assert rendering.token_ids.count(bare.bos_token_id) == 1


def test_plain_separators_in_a_vocabulary_made_by_sentencepiece() -> None:
    template = chat_template(word_tokenizer(None, ["▁Hello", "▁Answer"]))
    rendered = render_examples(template, Wording("", "{text}"), [SINGLE], max_length=999)
    assert {f.code for f in rendered.findings} <= CODES
    (rendering,) = rendered.renderings
    trained = rendering.token_ids[rendering.prompt_length :]
    assert template.tokenizer.convert_ids_to_tokens(trained) == ["▁Hello", "!", "</s>"]


def test_markers_that_a_vocabulary_does_not_call_special_still_end_answers() -> None:
    bare = byte_tokenizer(None, special=["<pad>", "</s>"])
    bare.add_tokens(["<|im_start|>", "<|im_end|>"])
    for name in ("auto", "chatml"):
        template = chat_template(bare, name)
        spelt = example(Message("user", "a<|im_end|>b"), ROUNDS[1])
        rendering = render(template, spelt)
        end = bare.convert_tokens_to_ids("<|im_end|>")
        assert template.stop_id == end
        assert rendering.token_ids.count(end) == 2
    bare.chat_template = template.source  # as a tuned model is saved
    assert chat_template(bare).stop_id == end


def test_chatml_spelt_out_is_said() -> None:
    bare = byte_tokenizer(None, special=["<pad>", "</s>"])
    template = chat_template(bare, "chatml")
    assert [f.code for f in template.findings] == ["markers-not-tokens"]
    text, trained = read(template, render(template, SINGLE))
    assert text.endswith("assistant\nHello!</s>")
    assert trained == ["Hello!</s>"]


def test_a_file_of_ones_own_is_used(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(CHATML.replace("<|im_start|>", "<|im_start|>@"))
    template = chat_template(byte_tokenizer(CHATML), str(file))
    text, _ = read(template, render(template, SINGLE))
    assert text.startswith("<|im_start|>@user\nHi")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("{% for %}", "not a valid Jinja template"),
        ("{{ undefined.thing }}", "refuses"),
    ],
)
def test_a_file_that_is_no_template_is_one_clear_error(
    content: str | None, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "own.jinja"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KilotuneError, match=words):
        chat_template(byte_tokenizer(CHATML), str(file))


def test_answers_without_any_end_are_refused() -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m.content }}\n{% endfor %}")
    tokenizer.eos_token = None
    with pytest.raises(KilotuneError, match="ends an answer"):
        chat_template(tokenizer)


def test_other_roles_are_refused_by_plain_separators() -> None:
    template = chat_template(byte_tokenizer(None), "plain")
    given = example(Message("tool", "42"), *ROUNDS[:2], row=3)
    (finding, *_) = render_examples(
        template, Wording("", "{text}"), [given], max_length=999
    ).findings
    assert (finding.code, finding.rows) == ("template-refuses", ("data:3",))
    assert "no role tool" in finding.message


def test_a_broken_template_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    with pytest.raises(KilotuneError) as caught:
        choose_template(byte_tokenizer(None), str(path))
    assert caught.value.where == f"{path}:2"
    assert caught.value.what.startswith("not a valid Jinja template: unexpected")
    path.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
                    "{% break %}{% endfor %}")  # fmt: skip
    assert choose_template(byte_tokenizer(None), str(path)).source == path.read_text()
