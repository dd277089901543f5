"""Examples cut to a length in tokens: of the prompt what is oldest first, of the answer nothing."""

from collections.abc import Callable
from dataclasses import replace

from kilotune.data.example import Example
from kilotune.rendering.label_mask import TrainOn, render
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording

# What a template writes around a message, in characters: only for guessing.
AROUND = 20


def fit(
    template: ChatTemplate,
    wording: Wording,
    example: Example,
    max_length: int,
    train_on: TrainOn = "auto",
    *,
    length: int | None = None,
) -> tuple[Example, bool]:
    """Word an example and cut it until all that `train_on` renders fits `max_length` tokens.

    The oldest turns go first, each question with its answer, and the system message stays; then
    the end of the last text. The wording and the last answer are never cut. `length` is that of the
    whole, where it is known. Returns the worded example and whether it was cut; raises RenderError
    when nothing of the text would be left.
    """

    def excess(shorter: Example) -> int:
        return _length(template, wording.apply(shorter), train_on) - max_length

    too_many = excess(example) if length is None else length - max_length
    if too_many <= 0:
        return wording.apply(example), False
    asked = [i for i, message in enumerate(example.messages) if message.role == "user"]
    if len(asked) > 1:
        # As many as must go, found in a few renderings however many there are.
        guess = _guess(example, asked, max_length / (max_length + too_many))
        first = _first(lambda gone: excess(_without(example, asked[gone])) <= 0, asked, guess)
        example = _without(example, asked[first])
        too_many = excess(example)
    while too_many > 0:
        shorter = _with_shorter_text(template, example, too_many)
        if shorter is None:
            raise RenderError("too-long", f"max_length {max_length}", where=str(example.origin))
        example = shorter
        too_many = excess(example)
    return wording.apply(example), True


def _length(template: ChatTemplate, example: Example, train_on: TrainOn) -> int:
    if example.answer is None:
        return len(template.prompt_ids(example.messages)) + 1
    # Which of the answers are trained changes no token; what follows the last one does.
    behind: TrainOn = "completion" if train_on == "completion" else "last"
    return len(render(template, example, behind).token_ids)


def _without(example: Example, start: int) -> Example:
    """The example from its message `start` on, the system message before it."""
    first = next(i for i, message in enumerate(example.messages) if message.role == "user")
    kept = [message for message in example.messages[:first] if message.role == "system"]
    return replace(example, messages=(*kept, *example.messages[start:]))


def _guess(example: Example, asked: list[int], share: float) -> int:
    """How many questions must go so that `share` of the conversation is left, by its letters."""
    left = [0]
    for message in reversed(example.messages):
        left.append(left[-1] + len(message.text) + AROUND)
    left.reverse()
    wanted = share * left[0]
    return next((gone for gone, start in enumerate(asked) if left[start] <= wanted), len(asked))


def _first(fits: Callable[[int], bool], asked: list[int], guess: int) -> int:
    """The smallest number from 1 to the last place in `asked` that fits, or that last place.

    Steps away from `guess`, in steps that double, and halves what is then between.
    """
    low, high = 0, len(asked) - 1
    at, step = guess, 1
    while high - low > 1:
        if not low < at < high:
            at = (low + high) // 2
        if fits(at):
            high, at = at, at - step
        else:
            low, at = at, at + step
        step *= 2
    return high


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
