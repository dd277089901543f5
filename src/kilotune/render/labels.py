"""Which tokens are trained: the answers and the tokens that end them, nothing else."""

from dataclasses import dataclass

from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.render.template import ChatTemplate


@dataclass(frozen=True, slots=True)
class Rendering:
    """An example as the model sees it.

    `token_ids` and `label_mask` have the same length; a True says that the token is trained
    (predicted from those before it). The first `prompt_length` tokens are exactly what
    generation starts from.
    """

    example_id: str
    token_ids: tuple[int, ...]
    label_mask: tuple[bool, ...]
    prompt_length: int


def render(template: ChatTemplate, example: Example) -> Rendering:
    """Render a conversation whose every assistant turn is trained.

    Each stretch of text between the borders of prompts and answers is encoded by itself, so that
    no token merges across a border: what is trained after the prompt is what can be generated
    after it. Raises KilotuneError for a template that rewrites earlier turns.
    """
    ids: list[int] = []
    mask: list[bool] = []
    done = ""
    prompt_length = 0
    for turn, message in enumerate(example.messages):
        if message.role != "assistant":
            continue
        opened = template.text(example.messages[:turn], generation_prompt=True)
        closed = template.text(example.messages[: turn + 1])
        if not (opened.startswith(done) and closed.startswith(opened)):
            raise KilotuneError(
                f"the chat template changes earlier text at turn {turn + 1}",
                where=f"{example.origin.file}:{example.origin.row}",
                fix="Split the conversation so that this answer is its last turn",
            )
        prompt = template.encode(opened[len(done) :])
        answer, rest = _until_stop(template, template.encode(closed[len(opened) :]))
        ids += prompt + answer + rest
        mask += [False] * len(prompt) + [True] * len(answer) + [False] * len(rest)
        prompt_length = len(ids) - len(answer) - len(rest)
        done = closed
    end = len(mask) - mask[::-1].index(True) if True in mask else 0
    return Rendering(example.id, tuple(ids[:end]), tuple(mask[:end]), prompt_length)


def _until_stop(template: ChatTemplate, ids: list[int]) -> tuple[list[int], list[int]]:
    """The answer with the token that ends it, and what the template adds behind that."""
    if template.stop_id not in ids:
        return [*ids, template.stop_id], []
    # The last one: an answer may quote the token, the template always closes with it.
    end = len(ids) - ids[::-1].index(template.stop_id)
    return ids[:end], ids[end:]
