"""Characters that were never meant: wrong encodings, control characters, invisible signs."""

import codecs
import re
from collections.abc import Callable, Sequence

from ftfy.badness import is_bad

from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows

# The sign that stands for undecodable bytes, two of them read as GBK, and the controls that
# UTF-8 read as Latin-1 leaves behind.
BROKEN = re.compile("[\ufffd\x80-\x84\x86-\x9f]|锟斤拷|烫烫烫|屯屯屯")
HAN = re.compile("[㐀-鿿]{2}")
RUN_OF_HAN = re.compile("[一-鿿，。！？；：、（）《》“”]+")
HAN_SHARE = 0.9
# Shorter Chinese texts can happen to be UTF-8 when written as GBK.
LEAST_HAN = 6

# Neither line ends nor tabs; the byte-order mark inside a text, line separators that are no line
# ends to most programs, and overrides of the writing direction.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\u2028\u2029\u202d\u202e]")
# A space of no width marks words in scripts of South-East Asia, and is a leftover elsewhere.
ZERO_WIDTH = "\u200b"
SOUTH_EAST = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")


def mojibake(examples: Sequence[Example]) -> list[Finding]:
    """Texts decoded with the wrong encoding, by ftfy's measure of unlikely characters."""
    return about_rows("mojibake", rows_with(examples, misread))


def control_characters(examples: Sequence[Example]) -> list[Finding]:
    """Control characters and invisible signs, which a tokenizer sees and a reader does not."""
    return about_rows("control-characters", rows_with(examples, _has_control))


def rows_with(examples: Sequence[Example], fault: Callable[[str], bool]) -> list[str]:
    """The ids of the examples in which any message's text has the fault."""
    return [
        example.id
        for example in examples
        if any(fault(message.text) for message in example.messages)
    ]


def misread(text: str) -> bool:
    """Whether a text looks as if it was decoded with the wrong encoding."""
    if text.isascii():
        return False
    return bool(BROKEN.search(text)) or bool(is_bad(text)) or utf8_read_as_gbk(text)


def utf8_read_as_gbk(text: str) -> bool:
    """Whether a text is UTF-8 that was decoded as GBK, long enough to tell."""
    if not HAN.search(text) or sum(char >= "㐀" for char in text) < LEAST_HAN:
        return False
    try:
        # A character cut off at the end is no proof against it.
        read, _ = codecs.utf_8_decode(text.encode("gbk"), "strict", False)
        return not read.isascii()
    except UnicodeError:
        return False


def gbk_read_as_latin(text: str) -> str | None:
    """The Chinese text whose GBK was decoded as Latin-1 or Windows-1252; None for any other."""
    for encoding in ("latin-1", "cp1252"):
        try:
            read = text.encode(encoding).decode("gbk")
        except UnicodeError:
            continue
        beyond = sum(char >= "\x80" for char in text)
        han = sum(map(len, RUN_OF_HAN.findall(read)))
        # Two bytes each, and hardly anything beside them: accents of other languages stand alone.
        if han >= LEAST_HAN / 2 and 2 * han >= HAN_SHARE * beyond:
            return read
    return None


def _has_control(text: str) -> bool:
    if text.isprintable():
        return False
    if CONTROL.search(text):
        return True
    return ZERO_WIDTH in text and not SOUTH_EAST.search(text)
