"""Examples back to rows of each format.

Rows are of plain values; what a row cannot hold is found by reading it again.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from kilotune.data.example import Example, Message
from kilotune.data.images.references import with_placeholders, written
from kilotune.data.turns import inline_images

SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}

Rows = list[dict[str, Any]]


def _each(row: Callable[[Example], dict[str, Any]]) -> Callable[[Sequence[Example]], Rows]:
    """A writer of one example as the writer of many, with the images of each."""

    @wraps(row)
    def write(examples: Sequence[Example]) -> Rows:
        return [{**row(example), **_images(example)} for example in examples]

    return write


@_each
def write_text_label(example: Example) -> dict[str, Any]:
    """Columns of texts and labels."""
    return {"text": _last(example, "user"), "label": _last(example, "assistant")}


def write_prompt_completion(examples: Sequence[Example]) -> Rows:
    """Texts where every row is one question; else lists of turns."""
    roles = {tuple(message.role for message in example.messages) for example in examples}
    single = roles <= {("user",), ("user", "assistant")}
    return (_question_and_answer if single else _turns_before_and_after)(examples)


@_each
def _question_and_answer(example: Example) -> dict[str, Any]:
    return {"prompt": _last(example, "user"), "completion": _last(example, "assistant")}


@_each
def _turns_before_and_after(example: Example) -> dict[str, Any]:
    turns = [_turn(message, "role", "content") for message in example.messages]
    asked = len(example.prompt)
    return {"prompt": turns[:asked], "completion": turns[asked:] or None}


@_each
def write_alpaca(example: Example) -> dict[str, Any]:
    """An instruction without input, the turns before it as history."""
    said = {"instruction": _last(example, "user"), "input": ""}
    return {**said, "output": _last(example, "assistant"), **_system_and_history(example)}


@_each
def write_query_response(example: Example) -> dict[str, Any]:
    """A query, the turns before it as history."""
    said = {"query": _last(example, "user"), "response": _last(example, "assistant")}
    return {**said, **_system_and_history(example)}


@_each
def write_sharegpt(example: Example) -> dict[str, Any]:
    """Turns of `from` and `value`."""
    return {"conversations": [_turn(m, "from", "value", SPEAKERS) for m in example.messages]}


def write_llava(examples: Sequence[Example]) -> Rows:
    """ShareGPT's turns, and a column of images."""
    # Every row has the column: it is what tells the format.
    return [{"images": [], **row} for row in write_sharegpt(examples)]


def write_messages(examples: Sequence[Example]) -> Rows:
    """OpenAI's form: texts as strings, or all as parts where there are images.

    Texts that tell of `<img>path</img>` are parts too: in strings that would be an image.
    """
    as_parts = any(
        message.images or inline_images(message.text)
        for example in examples
        for message in example.messages
    )
    return [
        {
            "messages": [
                {
                    "role": message.role,
                    "content": [_part(part) for part in message.parts]
                    if as_parts
                    else message.text,
                    **({} if message.trained else {"weight": 0}),
                }
                for message in example.messages
            ]
        }
        for example in examples
    ]


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "image_url", "image_url": {"url": written(part)}}


def _turn(
    message: Message, role: str, body: str, names: Mapping[str, str] | None = None
) -> dict[str, str]:
    name = (names or {}).get(message.role, message.role)
    return {role: name, body: with_placeholders(message)}


def _images(example: Example) -> dict[str, Any]:
    return {"images": [written(image) for image in example.images]} if example.images else {}


def _last(example: Example, role: str) -> str:
    """The last user's message, or the answer; with `<image>` where images are."""
    messages = example.prompt if role == "user" else example.messages[len(example.prompt) :]
    return with_placeholders(messages[-1]) if messages else ""


def _system_and_history(example: Example) -> dict[str, Any]:
    system = [m for m in example.prompt[:1] if m.role == "system"]
    turns = [with_placeholders(message) for message in example.prompt[len(system) : -1]]
    pairs = [turns[index : index + 2] for index in range(0, len(turns), 2)]
    columns: dict[str, Any] = {"system": system[0].text} if system else {}
    return {**columns, "history": pairs} if pairs else columns
