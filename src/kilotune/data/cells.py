"""One row by the fields of its format, and each format's way from its fields to messages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kilotune.data.columns.joined import Columns, join, names_in, shown, text_in
from kilotune.data.example import Message
from kilotune.data.files.json_rows import parse
from kilotune.data.images.references import read_images
from kilotune.data.row_faults import RowError
from kilotune.data.turns import is_turn, kind_of, listed, read_turns, with_inline_images

Values = Mapping[str, Any]
# What is asked of pictures that have captions and no questions.
CAPTION_PROMPT = "Describe the picture."
# A row that counts more than this is a slip.
MOST_WEIGHT = 1000


@dataclass(slots=True)
class Cells:
    """One row, by the fields of its format.

    `columns` are the file's columns for the fields, `folder` is where images are looked for, and
    `called` has the names to write for joined columns where those are not their own. In a file of
    `structured` answers an empty list is one. Reading notes in `said` what it left out of the row,
    and in `slots` that there are content parts for images of the row's image column.
    """

    values: Values
    columns: Mapping[str, Columns]
    folder: str
    called: Mapping[str, str] = field(default_factory=dict)
    structured: bool = False
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
        """The value as the file has it; None where there is no such column or cell.

        Of several columns it is their texts, each behind its name.
        """
        column = self.columns.get(field)
        if column is None or isinstance(column, str):
            return None if column is None else self.values.get(column)
        return join({self.called.get(name, name): self.values.get(name) for name in column})

    def needed(self, field: str) -> Any:
        """The value of a field that must be there, if only as null. Raises RowError."""
        column = self.columns[field]
        if not any(name in self.values for name in names_in(column)):
            raise RowError("missing-field", shown(column))
        return self.get(field)

    def text(self, field: str) -> str:
        """The value as text, "" for none. Raises RowError for a list or an object."""
        return self.as_text(field, self.get(field))

    def as_text(self, field: str, value: Any) -> str:
        """`value`, which is `field`'s, as text: numbers as they are written, whole ones plainly.

        A column of whole numbers with a gap in it is one of floats to many programs: 1.0 is 1.
        """
        if isinstance(value, str):
            return value
        if value is None or value != value:
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        if isinstance(value, int | float):
            return str(value)
        raise RowError("wrong-type", f"{self._shown(field)} that is {kind_of(value)}")

    def answer(self, field: str) -> str:
        """The value of an answer as text: an object is JSON, and written as that.

        So is a list that is no list of labels.
        """
        value = self.get(field)
        if isinstance(value, list) and field != "label":
            return as_json(value) if value or self.structured else ""
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
            raise RowError("bad-json-cell", self._shown(field)) from None

    def weight(self) -> float:
        """How much the row counts; 1 where nothing says. Raises RowError for what is no number."""
        value = self.get("weight")
        if value in (None, ""):
            return 1.0
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = -1.0
        if not 0 <= weight <= MOST_WEIGHT:
            raise RowError("bad-weight", repr(value)[:40])
        return weight

    def _shown(self, field: str) -> str:
        return shown(self.columns.get(field, field))

    def images(self) -> list[Any]:
        """The images of the row's image column."""
        value = self.get("images")
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = self.nested("images")
        return read_images(value, self.folder)


def is_structured(value: Any) -> bool:
    """Whether a cell of answers is a JSON object or list, and no turns."""
    return isinstance(value, dict | list) and not any(map(is_turn, value))


def as_json(value: Any) -> str:
    """A value as JSON text. Raises RowError for bytes inside."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        raise RowError("wrong-type", "an answer that holds bytes") from None


def read_text_label(cells: Cells) -> list[Message]:
    """A text, and a label as its answer."""
    # Of images alone there may be none.
    text = cells.needed("text") if "text" in cells.columns else ""
    text = cells.as_text("text", text).strip()
    return [Message("user", text), *_answer(cells.answer("label").strip())]


def read_prompt_completion(cells: Cells) -> list[Message]:
    """A prompt and a completion, each a text or a list of turns; of captions there is no prompt."""
    asked = cells.needed("prompt") if "prompt" in cells.columns else CAPTION_PROMPT
    return [
        *_system(cells),
        *_side(cells, "prompt", "user", asked),
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
    if isinstance(value, list) and (role == "user" or any(map(is_turn, value))):
        return cells.turns(value)
    if role == "assistant":
        return _answer(cells.answer(field))
    return [Message("user", cells.as_text(field, value))]


def read_alpaca(cells: Cells) -> list[Message]:
    """An instruction with its input, and the turns before it."""
    told = cells.as_text("instruction", cells.needed("instruction"))
    given = cells.get("input")
    given = text_in(given) if isinstance(given, list) else cells.as_text("input", given)
    asked = "\n".join(filter(None, (told, given)))
    answer = _answer(cells.answer("output"))
    return [*_system(cells), *_history(cells), Message("user", asked), *answer]


def read_query_response(cells: Cells) -> list[Message]:
    """A query and a response, and the turns before them."""
    asked = Message("user", cells.as_text("query", cells.needed("query")))
    answer = _answer(cells.answer("response"))
    return _with_inline_images(cells, [*_system(cells), *_history(cells), asked, *answer])


def read_conversation(cells: Cells) -> list[Message]:
    """A list of turns."""
    cells.needed("messages")
    turns = listed(cells.nested("messages"))
    messages = cells.turns([] if turns is None else turns)
    has_own = bool(messages) and messages[0].role == "system"
    return messages if has_own else [*_system(cells), *messages]


def read_llava(cells: Cells) -> list[Message]:
    """A list of turns with images in the text, as Qwen-VL has them."""
    return _with_inline_images(cells, read_conversation(cells))


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
