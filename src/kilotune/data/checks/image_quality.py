"""Pictures: whether each is there, can be opened, and is what the loader expects."""

import io
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kilotune.data.example import Example, Image
from kilotune.data.finding import Finding, about_rows
from kilotune.errors import shorten
from kilotune.messages.sentences import kinds, phrase

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# More pixels than vision models take in (Qwen2-VL: 16,384 patches of 28 x 28): the rest is memory
# and time spent on scaling down.
OVERSIZED = 16_384 * 28 * 28
# The kinds that are opened. Pillow would try dozens, and start Ghostscript for PostScript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")
# What Pillow's readers raise on damaged files.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError)
# Longer than this times its width, an image is refused by Qwen2-VL's processor.
LONGEST_SIDES = 200

REMOTE = ("http://", "https://", "ftp://", "s3://", "gs://", "hf://")

# Modes that become RGB without loss, or without one that is seen.
PLAIN_MODES = ("1", "L", "RGB", "P", "LA", "RGBA", "PA", "La", "RGBa")


def image_faults(examples: Sequence[Example]) -> list[Finding]:
    """Everything that is wrong with images; each file is opened once."""
    seen: dict[Image, tuple[tuple[str, str], ...]] = {}
    faulty: dict[str, dict[str, str]] = defaultdict(dict)
    for example in examples:
        for image in example.images:
            if image not in seen:
                seen[image] = tuple(_faults(image))
            for code, detail in seen[image]:
                faulty[code].setdefault(example.id, detail)
    findings = []
    for code in sorted(faulty, key=list(kinds()).index):
        rows = faulty[code]
        named = [phrase("row-why", row=row, why=detail) for row, detail in rows.items()]
        findings += about_rows(code, list(rows), named=named, pixels=OVERSIZED / 1e6)
    return findings


def _faults(image: Image) -> Iterator[tuple[str, str]]:
    """The codes of what is wrong with one image, each with a detail."""
    if image.data is None:
        if image.source.casefold().startswith(REMOTE):
            yield "remote-image", shorten(image.source)
            return
        if not os.path.isfile(image.path):  # no error for a name that no system would have
            yield "missing-image", shorten(image.source)
            return
        if _outside(image):
            yield "image-outside", shorten(image.source)
    # Imported here: most data have no images, and `kilotune check` answers sooner.
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    name = shorten(image.source) or "in the file"
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes that are reported below.
            warnings.simplefilter("ignore")
            content = image.path if image.data is None else io.BytesIO(image.data)
            with Pillow.open(content, formats=FORMATS) as opened:
                yield from _faults_of(opened, name)
    except Pillow.DecompressionBombError:
        yield "oversized-image", name
    except UnidentifiedImageError:
        yield "corrupt-image", f"{name}: none of {', '.join(FORMATS)}"
    except UNREADABLE as error:
        yield "corrupt-image", f"{name}: {type(error).__name__}"


def _outside(image: Image) -> bool:
    """Whether the file is, links followed, elsewhere than in the data file's folder or below."""
    folder = os.path.realpath(image.folder)
    return not os.path.realpath(image.path).startswith(os.path.join(folder, ""))


def _faults_of(picture: "Picture", name: str) -> Iterator[tuple[str, str]]:
    width, height = picture.size
    longest, shortest = max(width, height), min(width, height)
    if width * height > OVERSIZED or longest > LONGEST_SIDES * shortest:
        yield "oversized-image", f"{name}: {width} x {height}"
        return
    frames = getattr(picture, "n_frames", 1)
    picture.load()
    if picture.mode not in PLAIN_MODES:
        yield "image-mode", f"{name}: {picture.mode}"
    elif frames > 1:
        yield "image-mode", f"{name}: {frames} frames"
    elif _see_through(picture):
        yield "image-mode", f"{name}: transparent"


def _see_through(picture: "Picture") -> bool:
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return False
    opacity = picture.convert("RGBA").getchannel("A").histogram()
    return any(opacity[:255])
