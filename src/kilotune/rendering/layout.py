"""Where the contents of messages lie in the text that a chat template makes of them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kilotune.data.example import Message
from kilotune.rendering.refusals import RenderError

Apply = Callable[[Sequence[Message]], str]

# What templates do to the ends of a content, the commonest first.
TRIMS: tuple[Callable[[str], str], ...] = (
    str,
    str.strip,
    str.lstrip,
    str.rstrip,
    lambda text: text.strip("\n"),
    lambda text: text.lstrip("\n"),
    lambda text: text.rstrip("\n"),
)


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of message number `message`, or a part of it, as `text[start:end]`."""

    start: int
    end: int
    message: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A conversation as the template writes it, and where the contents lie, in order."""

    text: str
    slots: tuple[Slot, ...]

    def slot(self, message: int) -> Slot:
        """Where the (one) content of message number `message` lies."""
        return next(slot for slot in self.slots if slot.message == message)

    def template_text(self) -> str:
        """What the template wrote itself: the text without the contents, a gap for each."""
        edges = [0, *(edge for slot in self.slots for edge in (slot.start, slot.end))]
        edges.append(len(self.text))
        own = zip(edges[::2], edges[1::2], strict=True)
        return "\0".join(self.text[start:end] for start, end in own)


def lay_out(apply: Apply, messages: Sequence[Message], shown: Apply | None = None) -> Layout:
    """The text that `apply` makes of `messages`, and the contents in it.

    The conversation is rendered once more with a mark of plain letters in place of every
    content: what stands around the marks is the template's own. Where it treats a user's text by
    what it says, answers alone are marked. `shown` may be an `apply` that remembers: conversations
    of one form have the same marks. Raises RenderError when messages are left out, or when an
    answer is rewritten other than by trimming.
    """
    text = apply(messages)
    everything = frozenset(range(len(messages)))
    answers = frozenset(i for i in everything if messages[i].role == "assistant")
    for marked in dict.fromkeys((everything, answers)):
        found = _between_marks(shown or apply, messages, marked, text)
        if found is not None:
            return found
    raise RenderError("answer-rewritten")


def _between_marks(
    apply: Apply, messages: Sequence[Message], marked: frozenset[int], text: str
) -> Layout | None:
    mark = _unused_mark(text)
    contents: list[tuple[int, str]] = []
    stand_ins: list[Message] = []
    for index, message in enumerate(messages):
        parts = list(message.parts)
        for place, part in enumerate(parts):
            if isinstance(part, str) and index in marked:
                parts[place] = f"{mark}{len(contents)}x"
                contents.append((index, part))
        content = parts[0] if isinstance(message.content, str) else tuple(parts)
        stand_ins.append(Message(message.role, content))  # type: ignore[arg-type]
    shown = apply(stand_ins)
    pieces = re.split(rf"{mark}(\d+)x", shown)
    own, numbers = pieces[::2], [int(number) for number in pieces[1::2]]
    if len(numbers) < len(re.findall(mark, shown, re.IGNORECASE)):
        return None  # written in capitals, say
    _all_there(contents, numbers, messages)
    return _match(text, own, [contents[number] for number in numbers])


def _match(text: str, own: Sequence[str], contents: Sequence[tuple[int, str]]) -> Layout | None:
    """Put the contents, trimmed as the template does, between its `own` pieces."""
    if not text.startswith(own[0]):
        return None
    at = len(own[0])
    slots = []
    for (message, content), following in zip(contents, own[1:], strict=True):
        for trim in TRIMS:
            end = at + len(trim(content))
            if text[at:end] == trim(content) and text.startswith(following, end):
                break
        else:
            return None
        slots.append(Slot(at, end, message))
        at = end + len(following)
    return Layout(text, tuple(slots)) if at == len(text) else None


def _all_there(
    contents: Sequence[tuple[int, str]], numbers: Sequence[int], messages: Sequence[Message]
) -> None:
    # An earlier answer may be left out, as thoughts are; whoever trains it will miss it.
    last = len(messages) - 1
    missing = [
        index
        for number, (index, _) in enumerate(contents)
        if number not in numbers and (messages[index].role != "assistant" or index == last)
    ]
    if missing:
        said = ", ".join(f"{index + 1} ({messages[index].role})" for index in missing)
        raise RenderError("message-dropped", f"message {said}")
    answers = [n for n in numbers if messages[contents[n][0]].role == "assistant"]
    if len(set(answers)) < len(answers):
        raise RenderError("answer-rewritten", "it stands there twice")


def _unused_mark(text: str) -> str:
    mark = "kilotuneQ"
    while mark in text:
        mark += "Q"
    return mark
