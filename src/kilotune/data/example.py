"""The one form in which every training item travels."""

import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The row that an example was read from; `row` is its line in the file, from 1."""

    file: str
    row: int


@dataclass(frozen=True, slots=True)
class Example:
    """One training item. `id` is unique within a run and never changes downstream."""

    id: str
    messages: tuple[Message, ...]
    origin: Origin
    label: str | None = None
    group: str | None = None

    @property
    def text(self) -> str:
        """What the user says last: the text to classify."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages up to the last answer, which is what generation starts from."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[:-1]
        return self.messages

    def with_text(self, text: str) -> "Example":
        """The same example with another `text`."""
        messages = list(self.messages)
        last = max(i for i, message in enumerate(messages) if message.role == "user")
        messages[last] = Message("user", text)
        return replace(self, messages=tuple(messages))


def plain_label(text: str) -> str:
    """A label as answers are compared with it: `comparable`, without punctuation around it.

    A label that is nothing but punctuation stays as it is.
    """
    form = comparable(text)
    return form.strip("\"'`*_.,;:!?()[]{}<>。，！？；：「」『』《》“”‘’ ") or form


def comparable(text: str) -> str:
    """Text as compared for duplicates: Unicode NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
