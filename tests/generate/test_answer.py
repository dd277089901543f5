"""What cannot be put to a model is named, all of it together, before anything is generated."""

from typing import Any

import pytest
from transformers import GenerationConfig

from kilotune.errors import KilotuneError
from kilotune.generate.answer import Prompting
from kilotune.progress import Silent
from kilotune.render.probe import chat_template
from kilotune.render.wording import Wording
from tests.made import conversation
from tests.tiny import CHATML, byte_tokenizer

REFUSING = "{% if 'no' in messages[-1]['content'] %}{{ raise_exception('not this') }}{% endif %}"


def test_every_example_that_cannot_be_asked_is_named() -> None:
    template = chat_template(byte_tokenizer(REFUSING + CHATML))
    prompting = Prompting(template, Wording("", "{text}"), GenerationConfig(), 60, 0)
    examples = [
        conversation(1, ("user", "fine"), ("assistant", "a")),
        conversation(2, ("system", "x" * 90), ("user", "long"), ("assistant", "a")),
        conversation(3, ("user", "no"), ("assistant", "a")),
        conversation(4, ("system", "x" * 90), ("user", "long")),
    ]
    assert [(f.code, f.severity, f.rows) for f in prompting.refusals(examples)] == [
        ("too-long", "error", ("data:2", "data:4")),
        ("template-refuses", "error", ("data:3",)),
    ]
    assert prompting.refusals(examples[:1]) == []
    model: Any = None  # it is not reached
    with pytest.raises(KilotuneError, match=r"(?s)data:2, data:4.*not this.*data:3"):
        prompting.answers(model, examples, Silent(), "judging")
