"""Image files to pictures as models take them: 8-bit colour, upright, nothing transparent."""

import hashlib
import io
import warnings
from functools import cache

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from kilotune.data.checks.image_quality import FORMATS, UNREADABLE
from kilotune.data.example import Image
from kilotune.errors import KilotuneError, shorten

# Grey values of more than 8 bits: integers of 16 bits in files, whatever Pillow calls them.
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


@cache
def digest(image: Image) -> bytes:
    """A digest of the file or the bytes of `image`, read once a process."""
    return hashlib.sha256(image.path.read_bytes() if image.data is None else image.data).digest()


def open_picture(image: Image) -> Pillow.Image:
    """The picture of `image` in mode RGB: the first frame of an animation, turned as its camera
    says, with white behind what is transparent.

    Raises KilotuneError for what is not there or cannot be read.
    """
    content = image.path if image.data is None else io.BytesIO(image.data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sizes are warned of by the checks
            with Pillow.open(content, formats=FORMATS) as opened:
                opened.load()
                return plain(ImageOps.exif_transpose(opened))
    except (Pillow.DecompressionBombError, *UNREADABLE) as error:
        raise KilotuneError(
            "an image that cannot be read",
            where=shorten(image.source) or "in the file",
            fix="Run kilotune check, which says what is wrong with it",
        ) from error


def plain(picture: Pillow.Image) -> Pillow.Image:
    """A picture of any mode as RGB, white behind what is transparent."""
    if picture.mode in DEEP_MODES:
        grey = np.asarray(picture).astype(np.int64)
        # Pillow reads 16 bits into `I` too; what needs no more than 8 is taken as 8.
        shift = 8 if grey.max(initial=0) > 255 else 0
        return Pillow.fromarray((grey >> shift).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        grey = np.nan_to_num(np.asarray(picture))
        top = 1.0 if grey.max(initial=0) <= 1 else 255.0
        return Pillow.fromarray((grey * (255 / top)).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        white = Pillow.new("RGBA", seen.size, "white")
        return Pillow.alpha_composite(white, seen).convert("RGB")
    return picture.convert("RGB")
