"""Writing that a vocabulary spells out is said to be unfamiliar; what it has words for is not."""

from dataclasses import replace
from typing import Any

import pytest

from kilotune.data.example import Example, Message, Origin
from kilotune.rendering.probe import chat_template
from kilotune.rendering.vocabulary_fit import unfamiliar_writing
from tests.support.tiny import byte_tokenizer

CHINESE = "这部电影真的很好看演员的表演非常出色我非常喜欢"
RUSSIAN = "этот фильм действительно очень хороший"


def examples(text: str, count: int = 30) -> list[Example]:
    return [Example(f"data:{n}", (Message("user", text),), Origin("a", n)) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "script", "ratio"), [(CHINESE, "Han", 3), (RUSSIAN, "Cyrillic", 2)]
)
def test_bytes_are_no_words(text: str, script: str, ratio: float) -> None:
    (found,) = unfamiliar_writing(chat_template(byte_tokenizer()), examples(text))
    assert (found.code, found.severity, found.values["script"]) == (
        "unfamiliar-writing", "note", script,
    )  # fmt: skip
    assert found.values["ratio"] == pytest.approx(ratio, abs=0.2)


def test_a_vocabulary_that_has_the_words_knows_them() -> None:
    def words(text: str, **_: Any) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    template = replace(chat_template(byte_tokenizer()), tokenizer=words)
    assert unfamiliar_writing(template, examples(RUSSIAN)) == []


def test_latin_letters_and_few_letters_tell_nothing() -> None:
    template = chat_template(byte_tokenizer())
    assert unfamiliar_writing(template, examples("a plain english text")) == []
    assert unfamiliar_writing(template, examples(CHINESE, 2)) == []
