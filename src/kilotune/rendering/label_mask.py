"""Which tokens are trained: the answers and the tokens that end them, nothing else."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.data.example import Example, Image, Message
from kilotune.rendering.layout import Layout
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate

TrainOn = Literal["auto", "last", "all_assistant", "completion"]

TAG = re.compile(r"[<\[{]")


@dataclass(frozen=True, slots=True)
class Rendering:
    """An example as the model sees it.

    `token_ids` and `label_mask` have the same length; a True says that the token is trained
    (predicted from those before it). The first `prompt_length` tokens are exactly what
    generation starts from. `images` belong to the placeholders in their order; `remarks` are
    the codes of findings that show only while rendering. `weight` is what each trained token
    counts in the loss.
    """

    example_id: str
    token_ids: tuple[int, ...]
    label_mask: tuple[bool, ...]
    prompt_length: int
    images: tuple[Image, ...] = ()
    remarks: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def trained(self) -> int:
        """How many tokens are trained."""
        return sum(self.label_mask)

    def spans(self) -> list[tuple[int, int]]:
        """The trained stretches: from the first token, to before the second."""
        return [match.span() for match in re.finditer(rb"\x01+", bytes(self.label_mask))]


def render(template: ChatTemplate, example: Example, train_on: TrainOn = "auto") -> Rendering:
    """Render a conversation up to its last answer, whose tokens are trained.

    `all_assistant` trains every answer; `completion` the last and all that the template writes
    behind it; `auto` every answer where there are several. Each answer is trained with the token
    that ends it, unless it is not to be `trained`. Raises RenderError when the template does not
    allow it.
    """
    messages = template.fitting(example.messages[: _end_of_last_answer(example.messages)])
    if not messages:
        ids = template.prompt_ids(example.messages)
        return Rendering(example.id, tuple(ids), (False,) * len(ids), len(ids), example.images)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    every = train_on == "all_assistant" or (train_on == "auto" and len(answers) > 1)
    if answers[0 if every else -1] == 0:
        raise RenderError("answer-first")
    if any(messages[answer].images for answer in answers):
        raise RenderError("image-in-answer")
    layout = template.layout(messages)
    if every and not _same_when_earlier(template, layout, messages):
        raise RenderError("turns-rewritten")
    ids, spans = _encode(template, layout, messages)
    mask = [False] * len(ids)
    for start, end, answer in spans if every else spans[-1:]:
        mask[start:end] = [messages[answer].trained] * (end - start)
    start, end, last = spans[-1]
    if train_on == "completion" and messages[last].trained:
        mask[end:] = [True] * (len(ids) - end)
        end = len(ids)
    return Rendering(
        example.id,
        tuple(ids[:end]),
        tuple(mask[:end]),
        start,
        tuple(image for message in messages for image in message.images),
        tuple(_remarks(template, layout, example.messages, messages)),
        example.weight,
    )


def _encode(
    template: ChatTemplate, layout: Layout, messages: Sequence[Message]
) -> tuple[list[int], list[tuple[int, int, int]]]:
    """The ids, and for each answer where its tokens begin, where its end has come, and its number.

    The control token behind an answer ends it. Where the template writes none, an earlier answer
    ends with its text, and the last is given the tokenizer's own end in place of what follows.
    """
    starts = template.borders(layout, messages)
    following = [*(slot.start for slot in layout.slots[1:]), len(layout.text)]
    slots, closed = [], []
    for slot, stop in zip(layout.slots, following, strict=True):
        if messages[slot.message].role == "assistant":
            slots.append(slot)
            # Whether the template writes a control token between this answer and what follows.
            found = template.encoder.special.spellings.search(layout.text, slot.end, stop)
            closed.append(found is not None)
    open_ends = {slot.end for slot, is_closed in zip(slots, closed, strict=True) if not is_closed}
    borders = sorted({*starts, *open_ends})
    ids, places = template.encode_layout(layout, messages, borders)
    place = dict(zip(borders, places, strict=True))
    ends = template.ends
    spans = []
    for start, slot, is_closed in zip(starts, slots, closed, strict=True):
        end = place.get(slot.end, 0)
        if is_closed:  # an answer itself holds no control token, so the next one is its end
            end = 1 + _next(ends, ids, place[start])
        spans.append((place[start], end, slot.message))
    if not closed[-1]:
        start, end, last = spans[-1]
        ids[end:] = [template.stop_id]
        spans[-1] = (start, end + 1, last)
    return ids, spans


def _end_of_last_answer(messages: Sequence[Message]) -> int:
    return max((i + 1 for i, m in enumerate(messages) if m.role == "assistant"), default=0)


def _next(wanted: frozenset[int], ids: Sequence[int], start: int) -> int:
    return next(i for i in range(start, len(ids)) if ids[i] in wanted)


def _same_when_earlier(template: ChatTemplate, layout: Layout, messages: Sequence[Message]) -> bool:
    """Whether every earlier answer's prompt is what generation starts from.

    Where the template treats all contents alike and none looks like a tag, which is what templates
    look for, the form of the conversation tells; else every prompt is rendered and compared.
    """
    alike = len(layout.slots) == len(messages) and all(map(_is_plain, messages))
    if alike and template.keeps_turns(tuple(message.role for message in messages)):
        return True
    return template.same_when_earlier(layout, messages)


def _is_plain(message: Message) -> bool:
    """Whether the content gives a template no reason to treat it in a way of its own."""
    text = message.content
    trimmed = isinstance(text, str) and text.strip() == text != ""
    return trimmed and TAG.search(message.text) is None


def _remarks(
    template: ChatTemplate, layout: Layout, given: Sequence[Message], messages: Sequence[Message]
) -> Iterator[str]:
    has_system = given[0].role == "system"
    if has_system and not template.takes_system:
        yield "system-moved"
    if template.default_system and not has_system:
        yield "default-system"
    if any(map(template.spells, messages)):
        yield "special-in-text"
    images = sum(len(message.images) for message in messages)
    if template.image_text is None:
        if images:
            yield "images-unsupported"
    elif layout.template_text().count(template.image_text) != images:
        yield "image-placeholders"
    elif images and template.pictures is None:
        yield "images-not-counted"
