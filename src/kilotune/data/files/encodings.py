"""Bytes to text: UTF-8, UTF-16 with its mark, and GB18030 where it is plainly that."""

import codecs
import re
from itertools import accumulate, takewhile

from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError

# Longer marks first: UTF-32's begins with UTF-16's.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Text in a one-byte encoding is sometimes valid GB18030 too, but then of rare characters. Real
# Chinese is of GB2312's characters, mostly its first level, and says the commonest ones often
# (about a third of a text; chance would make them one in thirty).
GB2312_SHARE, FIRST_LEVEL_SHARE, COMMON_SHARE = 0.8, 0.6, 0.1
COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过"
    "发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前"
    "开但因只从想实很，。！？、"
)
SAMPLE = 100_000
# UTF-16 without its mark: every other byte of plain Latin text is 0.
NUL_SHARE = 0.2


def decode(raw: bytes, where: str) -> tuple[str, list[Finding]]:
    """The text of a file, and a note where it was not Unicode.

    Raises KilotuneError with the line when it is in no encoding that can be known for sure.
    """
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    if raw.count(0) > NUL_SHARE * len(raw) and encoding == "utf-8":
        raise KilotuneError(
            "not text, or UTF-16 without its byte-order mark",
            where=where,
            fix="Save the file as UTF-8",
        )
    if raw.startswith(b"PK\x03\x04"):
        raise KilotuneError(
            "a zip archive or an Excel workbook, not text",
            where=where,
            fix="Name a workbook .xlsx; unpack an archive",
        )
    try:
        return raw.decode(encoding), []
    except UnicodeDecodeError as error:
        text = _gb18030(raw) if encoding == "utf-8" else None
        if text is None:
            line = raw.count(b"\n", 0, error.start) + 1
            kind = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
            raise KilotuneError(
                f"not {kind} text", where=f"{where}:{line}", fix="Save the file as UTF-8"
            ) from error
    return text, [finding("encoding-gb18030")]


def _gb18030(raw: bytes) -> str | None:
    """The text, if it is plausibly Chinese in GB18030."""
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return None
    sample = _beyond_ascii(text)
    known = sample.encode("gb2312", "ignore")
    leads = known[::2]
    first_level = sum(0xB0 <= lead <= 0xD7 for lead in leads)
    ideographs = sum(lead >= 0xB0 for lead in leads)
    plausible = (
        len(leads) >= GB2312_SHARE * len(sample)
        and first_level >= FIRST_LEVEL_SHARE * ideographs
        and sum(char in COMMON for char in sample) >= max(1, COMMON_SHARE * len(sample))
    )
    return text if plausible else None


def _beyond_ascii(text: str) -> str:
    """The first characters of `text` that are not ASCII, about SAMPLE of them."""
    runs = [match.group() for match in re.finditer(r"[^\x00-\x7f]+", text[: 50 * SAMPLE])]
    lengths = accumulate(map(len, runs))
    return "".join(runs[: 1 + sum(1 for _ in takewhile(lambda total: total < SAMPLE, lengths))])
