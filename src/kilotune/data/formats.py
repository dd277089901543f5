"""The schemas that rows come in: how each is recognised, read into messages and written.

`FORMATS` is the registry; adding a format is adding an entry.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilotune.data.example import Example, Message
from kilotune.data.faults import RowError
from kilotune.data.images import read_images, with_placeholders, written
from kilotune.data.json_rows import parse
from kilotune.data.turns import (
    ROLE_NAMES,
    inline_images,
    is_turn,
    kind_of,
    listed,
    read_turns,
    with_inline_images,
)

# Names that people give these columns, the likeliest first.
TEXT_COLUMNS = (
    "text", "sentence", "content", "review", "comment", "input", "question", "title", "prompt",
)  # fmt: skip
LABEL_COLUMNS = ("label", "labels", "category", "class", "target", "sentiment", "topic", "intent")
IMAGE_COLUMNS = ("images", "image", "image_path", "image_paths", "img")
# Every conversation format may have these beside its own.
SHARED = {"system": ("system",), "images": IMAGE_COLUMNS, "tools": ("tools",)}

# Rows of a file that are looked at to recognise its format.
SAMPLE_ROWS = 50

Values = Mapping[str, Any]


@dataclass(slots=True)
class Cells:
    """One row, by the fields of its format.

    `columns` are the file's columns for the fields and `folder` is where images are looked for.
    Reading notes in `said` what it left out of the row, and in `slots` that there are content
    parts for images of the row's image column.
    """

    values: Values
    columns: Mapping[str, str]
    folder: str
    said: set[str] = field(default_factory=set)
    slots: bool = False

    def __post_init__(self) -> None:
        """Note tool definitions: nothing reads them."""
        if self.get("tools") not in (None, "", "[]", []):
            self.said.add("tools-ignored")

    def turns(self, value: Any) -> list[Message]:
        """A list of turns as messages."""
        read = read_turns(value, self.folder)
        self.said |= read.said
        self.slots = self.slots or read.slots
        return read.messages

    def get(self, field: str) -> Any:
        """The value as the file has it; None where there is no such column or cell."""
        column = self.columns.get(field)
        return None if column is None else self.values.get(column)

    def needed(self, field: str) -> Any:
        """The value of a field that must be there, if only as null. Raises RowError."""
        column = self.columns[field]
        if column not in self.values:
            raise RowError("missing-field", repr(column))
        return self.values[column]

    def text(self, field: str) -> str:
        """The value as text, "" for none. Raises RowError for a list or an object."""
        return self.as_text(field, self.get(field))

    def as_text(self, field: str, value: Any) -> str:
        """`value`, which is `field`'s, as text: numbers as they are written."""
        if isinstance(value, str):
            return value
        if value is None or value != value:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return str(value)
        raise RowError("wrong-type", f"{self.columns.get(field)!r} that is {kind_of(value)}")

    def answer(self, field: str) -> str:
        """The value of an answer as text: an object is JSON, and written as that."""
        value = self.get(field)
        return as_json(value) if isinstance(value, dict) else self.as_text(field, value)

    def nested(self, field: str) -> Any:
        """A list, which tables hold as JSON; None for none. Raises RowError."""
        value = self.get(field)
        if not isinstance(value, str):
            return value
        if not value.strip():
            return None
        try:
            return parse(value)
        except ValueError:
            raise RowError("bad-json-cell", repr(self.columns[field])) from None

    def images(self) -> list[Any]:
        """The images of the row's image column."""
        value = self.get("images")
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = self.nested("images")
        return read_images(value, self.folder)


def as_json(value: Any) -> str:
    """A value as JSON text. Raises RowError for bytes inside."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        raise RowError("wrong-type", "an answer that holds bytes") from None


@dataclass(frozen=True, slots=True)
class Format:
    """One schema. `fields` are its fields with their usual columns; `needs` must have one.

    `answers` are those of `needs` that hold answers, which new texts lack. `fits` looks at sample
    rows where the columns alone do not tell.
    """

    title: str
    fields: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...]
    read: Callable[[Cells], list[Message]]
    write: Callable[[Sequence[Example]], list[dict[str, Any]]]
    answers: tuple[str, ...] = ()
    fits: Callable[[Sequence[Values], Mapping[str, str]], bool] = lambda rows, columns: True

    def columns(self, names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
        """The column of each field: the one given, else the first usual name the file has."""
        free = [name for name in names if name not in given.values()]
        by_name = {name.casefold(): name for name in reversed(free)}
        found = {
            field: given[field]
            if field in given
            else next((by_name[name] for name in usual if name in by_name), None)
            for field, usual in self.fields.items()
        }
        return {field: column for field, column in found.items() if column is not None}


def detect(
    names: Sequence[str], rows: Sequence[Values], given: Mapping[str, str], answered: bool
) -> str | None:
    """The name of the first format that has its columns and fits the rows; None for none."""
    for name, form in FORMATS.items():
        columns = form.columns(names, given)
        needs = form.needs if answered else set(form.needs) - set(form.answers)
        if (
            set(given) <= set(form.fields)
            and all(field in columns for field in needs)
            and form.fits(rows[:SAMPLE_ROWS], columns)
        ):
            return name
    return None


# ---- reading


def _text_label(cells: Cells) -> list[Message]:
    text = cells.as_text("text", cells.needed("text")).strip()
    return [Message("user", text), *_answer(cells.answer("label").strip())]


def _prompt_completion(cells: Cells) -> list[Message]:
    return [
        *_system(cells),
        *_side(cells, "prompt", "user", cells.needed("prompt")),
        *_side(cells, "completion", "assistant", cells.get("completion")),
    ]


def _side(cells: Cells, field: str, role: str, value: Any) -> list[Message]:
    """A prompt or a completion: a text, or a list of turns."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            parsed = parse(value)
        except ValueError:
            parsed = None
        if isinstance(parsed, list) and all(is_turn(turn) for turn in parsed):
            value = parsed
    if role == "assistant" and isinstance(value, list) and not any(map(is_turn, value)):
        return _answer(as_json(value) if value else "")
    if isinstance(value, list):
        return cells.turns(value)
    if role == "assistant":
        return _answer(cells.answer(field))
    return [Message("user", cells.as_text(field, value))]


def _alpaca(cells: Cells) -> list[Message]:
    told = cells.as_text("instruction", cells.needed("instruction"))
    asked = "\n".join(filter(None, (told, cells.text("input"))))
    answer = _answer(cells.answer("output"))
    return [*_system(cells), *_history(cells), Message("user", asked), *answer]


def _query_response(cells: Cells) -> list[Message]:
    asked = Message("user", cells.as_text("query", cells.needed("query")))
    answer = _answer(cells.answer("response"))
    return _with_inline_images(cells, [*_system(cells), *_history(cells), asked, *answer])


def _conversation(cells: Cells) -> list[Message]:
    cells.needed("messages")
    turns = listed(cells.nested("messages"))
    messages = cells.turns([] if turns is None else turns)
    has_own = bool(messages) and messages[0].role == "system"
    return messages if has_own else [*_system(cells), *messages]


def _llava(cells: Cells) -> list[Message]:
    return _with_inline_images(cells, _conversation(cells))


def _with_inline_images(cells: Cells, messages: list[Message]) -> list[Message]:
    """Qwen-VL's images in the text, in files that have no column for images."""
    if "images" in cells.columns:
        return messages
    return [with_inline_images(message, cells.folder) for message in messages]


def _system(cells: Cells) -> list[Message]:
    text = cells.text("system")
    return [Message("system", text)] if text else []


def _answer(text: str) -> list[Message]:
    return [Message("assistant", text)] if text else []


def _history(cells: Cells) -> list[Message]:
    pairs = cells.nested("history") or []
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in pairs
    ):
        raise RowError("wrong-type", "a history that is no list of pairs")
    return [
        Message(role, cells.as_text("history", text))
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


# ---- recognising


def _is_list_of_turns(rows: Sequence[Values], columns: Mapping[str, str]) -> bool:
    turns = list(_sample_turns(rows, columns))
    return any(map(is_turn, turns))


def _is_sharegpt(rows: Sequence[Values], columns: Mapping[str, str]) -> bool:
    turns = list(_sample_turns(rows, columns))
    return any(map(is_turn, turns)) and (
        columns["messages"].casefold() != "messages"
        or any("from" in turn for turn in turns if is_turn(turn))
    )


def _is_llava(rows: Sequence[Values], columns: Mapping[str, str]) -> bool:
    turns = [turn for turn in _sample_turns(rows, columns) if is_turn(turn)]
    return bool(turns) and ("images" in columns or any(map(_has_inline_image, turns)))


def _has_inline_image(turn: Values) -> bool:
    body = turn.get("content") or turn.get("value")
    if isinstance(body, str):
        speaker = str(turn.get("role") or turn.get("from")).strip().casefold()
        return ROLE_NAMES.get(speaker) == "user" and bool(inline_images(body))
    parts = body if isinstance(body, list) else []
    return any(isinstance(part, dict) and "type" not in part for part in parts)


def _sample_turns(rows: Sequence[Values], columns: Mapping[str, str]) -> Iterable[Any]:
    for values in rows:
        try:
            turns = listed(Cells(values, columns, "").nested("messages"))
        except RowError:
            continue
        yield from turns if isinstance(turns, list) else []


def _has_no_text_and_label(rows: Sequence[Values], columns: Mapping[str, str]) -> bool:
    """Columns called just that are meant, whatever else there is."""
    names = {name.casefold() for values in rows[:1] for name in values}
    return not {"text", "label"} <= names


# ---- writing: rows of plain values; what a row cannot hold is found by reading it again


def _write_text_label(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {"text": _last(example, "user"), "label": _last(example, "assistant"), **_images(example)}
        for example in examples
    ]


def _write_prompt_completion(examples: Sequence[Example]) -> list[dict[str, Any]]:
    roles = {tuple(message.role for message in example.messages) for example in examples}
    if roles <= {("user",), ("user", "assistant")}:
        return [
            {
                "prompt": _last(example, "user"),
                "completion": _last(example, "assistant"),
                **_images(example),
            }
            for example in examples
        ]
    return [
        {
            "prompt": [_turn(message, "role", "content") for message in example.prompt],
            "completion": [
                _turn(message, "role", "content")
                for message in example.messages[len(example.prompt) :]
            ]
            or None,
            **_images(example),
        }
        for example in examples
    ]


def _write_alpaca(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "instruction": _last(example, "user"),
            "input": "",
            "output": _last(example, "assistant"),
            **_system_and_history(example),
            **_images(example),
        }
        for example in examples
    ]


def _write_query_response(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "query": _last(example, "user"),
            "response": _last(example, "assistant"),
            **_system_and_history(example),
            **_images(example),
        }
        for example in examples
    ]


SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}


def _write_sharegpt(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "conversations": [
                _turn(message, "from", "value", SPEAKERS) for message in example.messages
            ],
            **_images(example),
        }
        for example in examples
    ]


def _write_llava(examples: Sequence[Example]) -> list[dict[str, Any]]:
    # Every row has the column: it is what tells the format.
    return [{"images": [], **row} for row in _write_sharegpt(examples)]


def _write_messages(examples: Sequence[Example]) -> list[dict[str, Any]]:
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


# In the order in which they are recognised: what needs more comes first.
FORMATS: dict[str, Format] = {
    "llava": Format(
        "LLaVA or Qwen-VL conversations with images",
        {"messages": ("conversations", "messages", "conversation"), **SHARED},
        ("messages",),
        _llava,
        _write_llava,
        fits=_is_llava,
    ),
    "sharegpt": Format(
        "ShareGPT conversations",
        {"messages": ("conversations", "conversation", "messages"), **SHARED},
        ("messages",),
        _conversation,
        _write_sharegpt,
        fits=_is_sharegpt,
    ),
    "messages": Format(
        "OpenAI messages",
        {"messages": ("messages", "conversations", "conversation"), **SHARED},
        ("messages",),
        _conversation,
        _write_messages,
        fits=_is_list_of_turns,
    ),
    "query-response": Format(
        "query/response rows",
        {"query": ("query",), "response": ("response",), "history": ("history",), **SHARED},
        ("query", "response"),
        _query_response,
        _write_query_response,
        answers=("response",),
    ),
    "alpaca": Format(
        "Alpaca instructions",
        {
            "instruction": ("instruction",),
            "input": ("input", "context"),
            "output": ("output", "response", "answer", "completion"),
            "history": ("history",),
            **SHARED,
        },
        ("instruction", "output"),
        _alpaca,
        _write_alpaca,
        answers=("output",),
    ),
    "prompt-completion": Format(
        "prompt/completion rows",
        {
            "prompt": ("prompt", "question", "query", "input"),
            "completion": ("completion", "response", "answer", "output", "reply"),
            **SHARED,
        },
        ("prompt", "completion"),
        _prompt_completion,
        _write_prompt_completion,
        answers=("completion",),
        fits=_has_no_text_and_label,
    ),
    "text-label": Format(
        "text and label columns",
        {"text": TEXT_COLUMNS, "label": LABEL_COLUMNS, "images": IMAGE_COLUMNS},
        ("text", "label"),
        _text_label,
        _write_text_label,
        answers=("label",),
    ),
}
