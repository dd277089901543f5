"""Templates for programs that give no arguments and open answers as the template says."""

import pytest

from kilotune.data.example import Message
from kilotune.rendering.probe import chat_template
from kilotune.rendering.standalone import standalone
from tests.rendering.kinds import KINDS, ROUNDS, SYSTEM, Kind
from tests.support.tiny import byte_tokenizer

CONVERSATIONS = (ROUNDS[:1], (SYSTEM, *ROUNDS[:1]), ROUNDS[:3])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_plain_tokenizer_writes_the_prompts_that_were_trained(kind: Kind) -> None:
    template = chat_template(byte_tokenizer(kind.source, **kind.settings()))
    tokenizer = byte_tokenizer(standalone(template), **kind.settings())
    for messages in CONVERSATIONS:
        fitting = template.fitting(messages)
        turns = [{"role": message.role, "content": message.text} for message in fitting]
        asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert asked == template.prompt_text(messages)


def test_conversations_with_answers_stay_as_they_are() -> None:
    for kind in KINDS:
        template = chat_template(byte_tokenizer(kind.source, **kind.settings()))
        tokenizer = byte_tokenizer(standalone(template), **kind.settings())
        turns = [
            {"role": m.role, "content": m.text} for m in (*ROUNDS[:3], Message("assistant", "4"))
        ]
        assert tokenizer.apply_chat_template(turns, tokenize=False) == template.text(ROUNDS)
