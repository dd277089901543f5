"""Lists of turns, in every spelling, to messages."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kilotune.data.example import Message, Part, content
from kilotune.data.images.references import PLACEHOLDER, read_images
from kilotune.data.row_faults import RowError

# What files call the three roles, in lower case.
ROLE_NAMES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user", "student": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "bing": "assistant", "bot": "assistant", "model": "assistant", "claude": "assistant",
    "ai": "assistant", "chatbot": "assistant",
}  # fmt: skip
# Turns of tools and calls of them, which are left out and said.
TOOL_ROLES = {
    "tool", "tools", "function", "observation", "ipython", "function_call", "function-call",
    "tool_call", "function_response", "function-response", "tool_response", "tool_result",
}  # fmt: skip
TOOL_KEYS = ("tool_calls", "function_call")
# Settings of single turns in other programs' files: whether an answer is trained, and thoughts.
TRAINED = ("weight", "loss", "loss_scale", "train", "training")
SETTINGS = frozenset({*TRAINED, "reasoning_content", "thinking"})
# Lists, since a file may have anything for a type, even what no set can look up.
TEXT_TYPES = ["text", "input_text", "output_text"]
IMAGE_TYPES = [None, "image", "image_url", "input_image"]
IMAGE_KEYS = ("image", "image_url", "url", "path", "base64", "bytes")
# Qwen-VL's images in the text. No "<" inside, and no way back: long texts take linear time.
INLINE_IMAGE = re.compile(r"<img>([^<]++)</img>")
# What stands there is an address, a data URI or a file that ends like a picture; else it is prose.
PICTURE = re.compile(
    r"(?:https?|file|data|s3|gs):\S|.*\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|heic|avif)$"
)


def is_turn(value: Any) -> bool:
    """Whether a value looks like one turn of a conversation."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def role_of(turn: Mapping[str, Any]) -> str | None:
    """Which of the three roles a turn has, whatever it is called; None for any other."""
    name = _called(turn)
    return ROLE_NAMES.get(name.strip().casefold()) if isinstance(name, str) else None


def _called(turn: Mapping[str, Any]) -> Any:
    return turn["role"] if turn.get("role") is not None else turn.get("from")


def listed(value: Any) -> Any:
    """A list of turns, where `datasets` wrote a sequence of objects as one object of lists."""
    if not is_turn(value) or not all(isinstance(cells, list) for cells in value.values()):
        return value
    if len(set(map(len, value.values()))) > 1:
        return value
    return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]


@dataclass(slots=True)
class Turns:
    """A conversation as it is read: its messages, and what was left out of it.

    `said` are codes of findings; `slots` says that a part stands for an image given elsewhere.
    """

    folder: str
    messages: list[Message] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    slots: bool = False

    def add(self, turn: Any) -> None:
        """Read one more turn. Raises RowError."""
        if not is_turn(turn):
            raise RowError("wrong-type", "a turn that is no object with a role")
        name = _called(turn)
        if not isinstance(name, str):
            raise RowError("wrong-type", f"a role that is {kind_of(name)}")
        role = name.strip().casefold()
        body = turn["content"] if turn.get("content") is not None else turn.get("value")
        calls = any(turn.get(key) for key in TOOL_KEYS)
        if calls or role in TOOL_ROLES:
            self.said.add("tools-ignored")
        if role in TOOL_ROLES or (calls and not body):
            return
        if role not in ROLE_NAMES:
            raise RowError("unknown-role", repr(name[:40]))
        if body is None and "content" not in turn and "value" not in turn:
            raise RowError("missing-field", "'content' of a turn")
        settings = {key: turn[key] for key in SETTINGS & turn.keys() if turn[key] is not None}
        # True and 1 are what happens anyway, False and 0 leave an answer out: all else is a share.
        if any(key not in TRAINED or value not in (0, 1) for key, value in settings.items()):
            self.said.add("turn-settings-ignored")
        trained = not any(settings.get(key) == 0 for key in TRAINED)
        text = body if isinstance(body, str) else content(self._parts(body))
        who = ROLE_NAMES[role]
        self.messages.append(Message(who, text, trained or who != "assistant"))

    def _parts(self, body: Any) -> Iterator[Part]:
        if body is None:
            return
        if not isinstance(body, list):
            raise RowError("wrong-type", f"a turn's content that is {kind_of(body)}")
        for item in body:
            yield from [item] if isinstance(item, str) else self._part(item)

    def _part(self, item: Any) -> Iterator[Part]:
        """One content part: a text, images, or the place of one of the row's image column."""
        if not isinstance(item, Mapping):
            raise RowError("wrong-type", f"a content part that is {kind_of(item)}")
        kind = item.get("type")
        source = next((item[key] for key in IMAGE_KEYS if item.get(key)), None)
        if kind in TEXT_TYPES or (kind is None and source is None):
            text = item.get("text")
            if not isinstance(text, str):
                raise RowError("wrong-type", "a text part without a text")
            yield text
        elif kind not in IMAGE_TYPES:
            raise RowError("wrong-type", f"a content part of type {str(kind)[:40]!r}")
        elif source is None:
            self.slots = True
            yield PLACEHOLDER
        else:
            yield from read_images(source, self.folder)


def read_turns(turns: Any, folder: str) -> Turns:
    """A list of turns as messages; images are relative to `folder`. Raises RowError."""
    if not isinstance(turns, list):
        raise RowError("wrong-type", f"a conversation that is {kind_of(turns)}")
    read = Turns(folder)
    for turn in turns:
        read.add(turn)
    return read


def inline_images(text: str) -> list[str]:
    """What stands as `<img>path</img>` in a text and looks like the path or address of one."""
    return [path for path in INLINE_IMAGE.findall(text) if _is_picture(path)]


def with_inline_images(message: Message, folder: str) -> Message:
    """The user's message with every `<img>path</img>` in its text turned into the image."""
    if message.role != "user" or "<img>" not in message.text:
        return message
    return replace(message, content=content(_inline(message.parts, folder)))


def _inline(parts: tuple[Part, ...], folder: str) -> Iterator[Part]:
    for part in parts:
        # Splitting by a group gives texts and paths in turn.
        pieces = INLINE_IMAGE.split(part) if isinstance(part, str) else [part]
        for index, piece in enumerate(pieces):
            if not isinstance(piece, str) or index % 2 == 0:
                yield piece
            elif _is_picture(piece):
                yield from read_images(piece, folder)
            else:
                yield f"<img>{piece}</img>"


def _is_picture(text: str) -> bool:
    text = text.strip().lower()
    return "\n" not in text and PICTURE.match(text) is not None


def kind_of(value: Any) -> str:
    """What JSON calls the kind of a value."""
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "bytes" if isinstance(value, bytes) else "a number")
