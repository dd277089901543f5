"""The one form in which every training item travels."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

Task = Literal["classify", "generate", "extract", "chat"]

# What a conversation is made of. A file may say other roles; the checks name them.
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message: `source` as the file writes it, relative to `folder`.

    Pictures that stand in the file itself have their bytes in `data`. Nothing is opened until it
    is checked or rendered.
    """

    source: str
    folder: str = ""
    data: bytes | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """Where the file is, for a picture without `data`."""
        return Path(self.folder) / self.source


Part = str | Image


def content(parts: Iterable[Part]) -> str | tuple[Part, ...]:
    """Parts as a message holds them: neighbouring texts joined, a text alone as a string."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    if not joined:
        return ""
    only = joined[0]
    return only if len(joined) == 1 and isinstance(only, str) else tuple(joined)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation: a text, or texts and images in their order.

    An answer that is not to be `trained` is context for what comes behind it.
    """

    role: str
    content: str | tuple[Part, ...]
    trained: bool = True

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, whichever way it is written."""
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The texts of the content, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the content."""
        if isinstance(self.content, str):
            return ()
        return tuple(part for part in self.content if isinstance(part, Image))

    def with_text(self, text: str) -> "Message":
        """The same message with another text, each image as far from its start as it was."""
        if not self.images:
            return replace(self, content=text)
        parts: list[Part] = []
        start = end = 0
        for part in self.parts:
            if isinstance(part, str):
                end = min(end + len(part), len(text))
            else:
                parts += [text[start:end], part]
                start = end
        parts.append(text[start:])
        return replace(self, content=content(parts))

    def with_images(self, change: Callable[[Image], Image]) -> "Message":
        """The same message with each image changed."""
        if not self.images:
            return self
        parts = (change(part) if isinstance(part, Image) else part for part in self.parts)
        return replace(self, content=tuple(parts))

    def between(self, before: str, after: str = "") -> "Message":
        """The same message with words before and after all of it, images too."""
        return replace(self, content=content((before, *self.parts, after)))


@dataclass(frozen=True, slots=True)
class Origin:
    """The row that an example was read from; `row` is its line in the file, from 1.

    One that was made from another names the `operation` and the `parent`'s id, and its row; one
    that is trained on in one epoch alone names it, counted from 1 (0: in all of them).
    """

    file: str
    row: int
    operation: str = ""
    parent: str = ""
    epoch: int = 0

    def __str__(self) -> str:
        made = f" ({self.operation} of {self.parent})" if self.parent else ""
        return f"{self.file}:{self.row}{made}"


@dataclass(frozen=True, slots=True)
class Example:
    """One training item. `id` is unique within a run and never changes downstream.

    `weight` is how much each of its trained tokens counts beside those of others.
    """

    id: str
    messages: tuple[Message, ...]
    origin: Origin
    label: str | None = None
    group: str | None = None
    weight: float = 1.0

    @property
    def text(self) -> str:
        """What the user says last: the text to classify."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def answer(self) -> str | None:
        """What the last message answers; None where the conversation ends without an answer."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[-1].text
        return None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages up to the last answer, which is what generation starts from."""
        return self.messages if self.answer is None else self.messages[:-1]

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image of the conversation, in order."""
        return tuple(image for message in self.messages for image in message.images)

    def with_text(self, text: str) -> "Example":
        """The same example with another `text`; as it is where no user says anything."""
        return self._with_asked(lambda message: message.with_text(text))

    def with_images(self, change: Callable[[Image], Image]) -> "Example":
        """The same example with each image changed."""
        return replace(self, messages=tuple(m.with_images(change) for m in self.messages))

    def between(self, before: str, after: str) -> "Example":
        """The same example with words around what the user says last, images too."""
        return self._with_asked(lambda message: message.between(before, after))

    def _with_asked(self, change: Callable[[Message], Message]) -> "Example":
        messages = list(self.messages)
        users = [i for i, message in enumerate(messages) if message.role == "user"]
        if not users:
            return self
        messages[users[-1]] = change(messages[users[-1]])
        return replace(self, messages=tuple(messages))


def references(examples: Iterable[Example]) -> list[str]:
    """The true answers; of closed labels the label."""
    return [example.label or example.answer or "" for example in examples]


def plain_label(text: str) -> str:
    """A label as answers are compared with it: `comparable`, without punctuation around it.

    A label that is nothing but punctuation stays as it is.
    """
    form = comparable(text)
    return form.strip("\"'`*_.,;:!?()[]{}<>。，！？；：「」『』《》“”‘’ ") or form


def comparable(text: str) -> str:
    """Text as compared for duplicates: Unicode NFKC, no case, single spaces."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
