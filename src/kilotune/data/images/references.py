"""Images as files write them: paths, bytes, base64; and their places in the text."""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kilotune.data.example import Image, Message, Part, content
from kilotune.data.row_faults import RowError

PLACEHOLDER = "<image>"
# First bytes of the kinds of pictures in use, with their media types.
KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
# Shorter texts of base64's letters are file names.
SHORTEST_BASE64 = 64
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
FILE = "file://"
# The name of a picture file, and no address of one.
PICTURE_FILE = re.compile(
    r"(?!\w+://)[^\n]+\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|heic|avif)", re.IGNORECASE
)
WEB = re.compile(r"(https?|ftp|s3|gs)://", re.IGNORECASE)


def read_images(value: Any, folder: str) -> list[Image]:
    """The images of one cell: none, one, or a list of them.

    A path is relative to `folder`. Raises RowError for what is no image.
    """
    if value is None or value == "" or value != value:
        return []
    if isinstance(value, list):
        return [image for item in value for image in read_images(item, folder)]
    return [_image(value, folder)]


def _image(value: Any, folder: str) -> Image:
    if isinstance(value, bytes):
        return Image("", data=value)
    if isinstance(value, str):
        return _from_text(value.strip(), folder)
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(data := value.get("bytes"), bytes):
            return Image(path if isinstance(path, str) else "", data=data)
        inner = next((value[key] for key in ("path", "url", "image_url") if value.get(key)), None)
        if inner is not None:
            return _image(inner, folder)
    raise RowError("wrong-type", "an image that is no path, bytes or base64")


def _from_text(text: str, folder: str) -> Image:
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise RowError("bad-image-data")
        return Image("", data=_decoded(body))
    if WEB.match(text):
        raise RowError("remote-image", repr(text[:80]))
    if len(text) >= SHORTEST_BASE64 and BASE64.fullmatch(text):
        data = _decoded(text)
        if media_type(data):
            return Image("", data=data)
    return Image(without_scheme(text), folder)


def without_scheme(text: str) -> str:
    """A path that may be written as a `file://` address, in whatever letters."""
    return text[len(FILE) :] if text[: len(FILE)].lower() == FILE else text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RowError("bad-image-data") from None


def media_type(data: bytes) -> str | None:
    """Which kind of picture begins with these bytes; None for none that is known."""
    return next((kind for start, kind in KINDS if data.startswith(start)), None)


def written(image: Image) -> str:
    """An image as text: its path as it is written, or its bytes as a data URI."""
    if image.data is None:
        return image.source
    kind = media_type(image.data) or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(image.data).decode()}"


def placeholders(messages: Iterable[Message]) -> int:
    """How often the texts say `<image>`."""
    return sum(message.text.count(PLACEHOLDER) for message in messages)


def place(messages: Sequence[Message], images: Sequence[Image]) -> list[Message]:
    """Put the images where the texts say `<image>`, in order.

    Placeholders without an image stay text; images without one go before the first user's text.
    """
    waiting = list(images)
    placed = [
        replace(message, content=content(_filled(message.parts, waiting)))
        if PLACEHOLDER in message.text
        else message
        for message in messages
    ]
    if waiting and placed:
        first = next((i for i, message in enumerate(placed) if message.role == "user"), 0)
        parts = (*waiting, *placed[first].parts)
        placed[first] = replace(placed[first], content=content(parts))
    return placed


def _filled(parts: Iterable[Part], waiting: list[Image]) -> Iterable[Part]:
    for part in parts:
        if isinstance(part, Image):
            yield part
            continue
        text, *rest = part.split(PLACEHOLDER)
        yield text
        for text in rest:
            yield waiting.pop(0) if waiting else PLACEHOLDER
            yield text


def with_placeholders(message: Message) -> str:
    """The message as text, `<image>` where its images are."""
    return "".join(part if isinstance(part, str) else PLACEHOLDER for part in message.parts)
