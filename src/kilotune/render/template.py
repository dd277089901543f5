"""The model's own chat template: messages to text, text to token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kilotune.data.example import Example, Message
from kilotune.errors import KilotuneError
from kilotune.render.wording import Wording

Tokenizer = Any  # a transformers fast tokenizer, kept untyped so that this needs no torch


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A tokenizer's chat template and what was found out about it.

    `takes_system` says whether it accepts a system message; one it refuses is put before the
    first user message. `stop_id` is the token that ends an answer.
    """

    tokenizer: Tokenizer
    takes_system: bool
    stop_id: int

    def text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text, special tokens spelled out."""
        fitting = messages if self.takes_system else _without_system(messages)
        return _apply(self.tokenizer, fitting, generation_prompt)

    def encode(self, text: str) -> list[int]:
        """Token ids of template text; the template has put every special token there itself."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """What generation starts from: the messages and the opening of an answer."""
        return self.encode(self.text(messages, generation_prompt=True))


def chat_template(tokenizer: Tokenizer) -> ChatTemplate:
    """Probe the template of `tokenizer` once.

    Raises KilotuneError when it has none, or when answers have no end that could be learnt.
    """
    where = str(getattr(tokenizer, "name_or_path", "") or "tokenizer")
    if not getattr(tokenizer, "chat_template", None):
        raise KilotuneError(
            "the tokenizer has no chat template",
            where=where,
            fix="Use the instruction-tuned model of the same family",
        )
    takes_system = _accepts_system(tokenizer)
    probe = ChatTemplate(tokenizer, takes_system, stop_id=-1)
    question = (Message("user", "a"),)
    opened = probe.text(question, generation_prompt=True)
    closed = probe.text((*question, Message("assistant", "b")))
    if not closed.startswith(opened):
        raise KilotuneError(
            "the chat template opens an answer in one way for training and another for generation",
            where=where,
            fix="Use a tokenizer whose template ends the prompt exactly where the answer begins",
        )
    special = special_ids(tokenizer)
    tail = [token for token in probe.encode(closed[len(opened) :]) if token in special]
    stop_id = tail[0] if tail else tokenizer.eos_token_id
    if stop_id is None:
        raise KilotuneError(
            "neither the chat template nor the tokenizer ends an answer",
            where=where,
            fix="Set the tokenizer's eos_token",
        )
    return replace(probe, stop_id=stop_id)


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of every special token, those that only the vocabulary file marks included."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def fit(
    template: ChatTemplate, wording: Wording, example: Example, max_length: int
) -> tuple[Example, bool]:
    """Word an example and cut the end of its text until all fits `max_length` tokens.

    The wording and the answer are never cut. Returns the worded example and whether it was cut;
    raises KilotuneError when nothing of the text would be left.
    """
    cut = False
    while (excess := _length(template, wording.apply(example)) - max_length) > 0:
        ids = template.encode(example.text)
        if len(ids) <= excess:
            raise KilotuneError(
                f"does not fit max_length {max_length} even without its text",
                where=f"{example.origin.file}:{example.origin.row}",
                fix="Raise data.max_length",
            )
        # A cut through a character leaves a mark of its lost bytes.
        shorter = template.tokenizer.decode(ids[: len(ids) - excess]).rstrip("\ufffd")
        example, cut = example.with_text(shorter), True
    return wording.apply(example), cut


def _length(template: ChatTemplate, example: Example) -> int:
    answer = template.encode(example.messages[-1].text) if example.label else []
    return len(template.prompt_ids(example.prompt)) + len(answer) + 1


def _accepts_system(tokenizer: Tokenizer) -> bool:
    messages = (Message("system", "kilotune-probe"), Message("user", "a"))
    try:
        return "kilotune-probe" in _apply(tokenizer, messages, False)
    except Exception:  # templates raise whatever they like; a refusal is all we need to know
        return False


def _without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    if not messages or messages[0].role != "system":
        return tuple(messages)
    system, first, *rest = messages
    return (Message(first.role, f"{system.text}\n\n{first.text}"), *rest)


def _apply(tokenizer: Tokenizer, messages: Sequence[Message], generation_prompt: bool) -> str:
    turns = [{"role": message.role, "content": message.text} for message in messages]
    text: str = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=generation_prompt
    )
    return text
