"""Examples cut to a length in tokens: of the prompt what is oldest first, of the answer nothing."""

from collections.abc import Sequence
from dataclasses import replace

from kilotune.data.example import Example, Message
from kilotune.render.faults import RenderError
from kilotune.render.labels import render
from kilotune.render.template import ChatTemplate
from kilotune.render.wording import Wording


def fit(
    template: ChatTemplate, wording: Wording, example: Example, max_length: int
) -> tuple[Example, bool]:
    """Word an example and cut it until all fits `max_length` tokens.

    The oldest turns go first, each question with its answer, and the system message stays; then
    the end of the last text. The wording and the last answer are never cut. Returns the worded
    example and whether it was cut; raises RenderError when nothing of the text would be left.
    """
    cut = False
    while (excess := _length(template, wording.apply(example)) - max_length) > 0:
        shorter = _without_oldest(example) or _with_shorter_text(template, example, excess)
        if shorter is None:
            raise RenderError("too-long", f"max_length {max_length}", where=str(example.origin))
        example, cut = shorter, True
    return wording.apply(example), cut


def _length(template: ChatTemplate, example: Example) -> int:
    if example.answer is None:
        return len(template.prompt_ids(example.messages)) + 1
    return len(render(template, example, "last").token_ids)


def _without_oldest(example: Example) -> Example | None:
    """The example without its oldest question and all up to the next; None for the last one."""
    asked = [i for i, message in enumerate(example.messages) if message.role == "user"]
    if len(asked) < 2:
        return None
    kept: Sequence[Message] = [m for m in example.messages[: asked[0]] if m.role == "system"]
    return replace(example, messages=(*kept, *example.messages[asked[1] :]))


def _with_shorter_text(template: ChatTemplate, example: Example, excess: int) -> Example | None:
    ids = template.encode(example.text)
    if len(ids) <= excess:
        return None
    kept: str = template.tokenizer.decode(
        ids[: len(ids) - excess], clean_up_tokenization_spaces=False
    )
    # A cut through a character leaves a mark of its lost bytes; a tokenizer that reads back more
    # than it was given must not keep this from ending.
    return example.with_text(kept.rstrip("\ufffd")[: len(example.text) - 1])
