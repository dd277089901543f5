"""The writing that a text is in, by Unicode blocks."""

import re

import numpy as np

# The first code point of each run of blocks, and the script of its letters.
BLOCKS = (
    (0x0000, "Latin"),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0900, "Devanagari"),
    (0x0980, "Indic"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Burmese"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x1780, "Khmer"),
    (0x1800, "other"),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, "other"),
    (0x3040, "Kana"),
    (0x3100, "Han"),
    (0xA000, "other"),
    (0xAC00, "Hangul"),
    (0xD800, "other"),
    (0xF900, "Han"),
    (0xFB00, "other"),
    (0xFF21, "Latin"),
    (0xFF66, "Kana"),
    (0xFFA0, "other"),
    (0x20000, "Han"),
    (0x32000, "other"),
)
STARTS = np.array([start for start, _ in BLOCKS])
NAMES = tuple(dict.fromkeys(name for _, name in BLOCKS))
SCRIPT_OF_BLOCK = np.array([NAMES.index(name) for _, name in BLOCKS])

# A sign that stands for a syllable or a word says as much as several letters of an alphabet.
WEIGHTS = np.array([3 if name in {"Han", "Kana", "Hangul"} else 1 for name in NAMES])
# A text is in a script when this share of its weighted letters is; Chinese texts name products
# and people in Latin letters, and stay Chinese.
DOMINANT = 0.7
# Japanese mixes kana with Han signs; Chinese has no kana.
KANA_SHARE = 0.1

# Thai, Lao, Burmese, Khmer, kana and Han put no spaces between words.
SPACELESS = re.compile("[฀-໿က-႟ក-៿぀-ヿ㐀-䶿一-鿿豈-﫿ｦ-ﾟ\U00020000-\U0003134f]")
LETTERS = re.compile(r"[^\W\d_]+")


def script(text: str, least: int = 1) -> str | None:
    """The script of most letters of `text`: Latin, Han, Japanese, Cyrillic and so on.

    None for a text of mixed scripts, or of fewer than `least` letters (a Han sign counts three).
    """
    letters = "".join(LETTERS.findall(text))
    if text.isascii():
        return "Latin" if letters and len(letters) >= least else None
    points = np.frombuffer(letters.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    blocks = np.searchsorted(STARTS, points, side="right") - 1
    counts = np.bincount(SCRIPT_OF_BLOCK[blocks], minlength=len(NAMES)) * WEIGHTS
    total = counts.sum()
    if not total or total < least:
        return None
    kana, han = NAMES.index("Kana"), NAMES.index("Han")
    if counts[kana] > KANA_SHARE * (counts[kana] + counts[han]):
        japanese = counts[kana] + counts[han]
        return "Japanese" if japanese >= DOMINANT * total else None
    best = int(counts.argmax())
    return NAMES[best] if counts[best] >= DOMINANT * total and NAMES[best] != "other" else None


def spaceless_share(text: str) -> float:
    """The share of the letters that belong to writing without spaces between words."""
    if text.isascii():
        return 0.0
    letters = sum(len(run) for run in LETTERS.findall(text))
    return min(1.0, len(SPACELESS.findall(text)) / max(1, letters))
