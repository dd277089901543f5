"""A template that prints the date: the same tokens on every day."""

from datetime import date, datetime
from typing import Any

import pytest
from transformers.utils import chat_template_utils

from kilotune.rendering.clock import DATE, DIRECTIVES
from kilotune.rendering.label_mask import render
from kilotune.rendering.probe import chat_template
from tests.rendering.kinds import MULTI, SINGLE
from tests.support.tiny import CHATML, byte_tokenizer

# A default where there is no clock, as Llama 3.2 has it; none, as others; in a macro.
DATED = {
    "default": (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}"
        "{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
        "<|im_start|>system\n{{ date_string }}<|im_end|>\n"
    ),
    "none": "<|im_start|>system\n{{ strftime_now('%d %b %Y') }}<|im_end|>\n",
    "macro": (
        "{%- macro opening() %}<|im_start|>system\n{{ strftime_now('%d %b %Y') }}<|im_end|>\n"
        "{% endmacro %}{{ opening() }}"
    ),
}


@pytest.fixture
def tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Tomorrow":
            return cls(2031, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)


@pytest.mark.parametrize("kind", DATED)
@pytest.mark.usefixtures("tomorrow")
def test_training_and_prediction_say_the_same_date_on_every_day(kind: str) -> None:
    tokenizer = byte_tokenizer(DATED[kind] + CHATML)
    assert "02 Jan 2031" in tokenizer.apply_chat_template([{"role": "user"}], tokenize=False)
    template = chat_template(tokenizer)
    rendering = render(template, MULTI)
    text = tokenizer.decode(rendering.token_ids)
    assert text.startswith(f"<|im_start|>system\n{DATE}<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    (finding,) = template.findings
    assert (finding.code, finding.severity) == ("date-fixed", "note")

    # Saved with the model, the template says so wherever it is used.
    tokenizer.chat_template = template.source
    again = chat_template(tokenizer)
    assert again.source == template.source
    assert again.prompt_ids(SINGLE.prompt) == template.prompt_ids(SINGLE.prompt)
    talk = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False).count(DATE) == 1


def test_a_date_that_the_recipe_gives_is_the_one_that_is_said() -> None:
    tokenizer = byte_tokenizer(DATED["default"] + CHATML)
    template = chat_template(tokenizer, arguments={"date_string": "1 May 2025"})
    assert "1 May 2025" in tokenizer.decode(template.prompt_ids(SINGLE.prompt))


def test_white_space_at_the_beginning_of_a_template_is_kept() -> None:
    source = "  \n{{ strftime_now('%F') }} " + CHATML
    tokenizer = byte_tokenizer(source)
    template = chat_template(tokenizer)
    assert template.text(SINGLE.prompt).startswith("  \n2024-07-26 <|im_start|>user")


@pytest.mark.parametrize("sign", [s for s in DIRECTIVES if s not in ("%c", "%x", "%X", "%Z", "%z")])
def test_directives_say_what_they_say_in_python(sign: str) -> None:
    assert (
        datetime.combine(date(2024, 7, 26), datetime.min.time()).strftime(sign)
        == (DIRECTIVES[sign])
    )
