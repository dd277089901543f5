"""Light changes of images, none so strong that a picture leaves its kind.

A changed picture must keep a structural similarity (Wang et al. 2004) to what it was; where it
does not, the change is made weaker, and given up at last.
"""

import io
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

from kilotune.augmentation.operation import Operation, rng_of
from kilotune.data.example import Example, Image
from kilotune.data.images.pixels import open_picture

Picture = Pillow.Image
# A change of a picture by so much, in [-1, 1]: 0 would leave it as it is.
Change = Callable[[Picture, float, random.Random], Picture]

# Similarity is told from grey pictures of so many pixels a side: a slight turn or crop moves
# little there. Constants of the paper, for values in [0, 1].
SIDE, SIGMA, C1, C2 = 64, 1.5, 0.01**2, 0.03**2
# A change that is too strong is tried at half its strength, so often.
TRIES = 4
# What each does at its strongest.
FACTOR, SHARPNESS, DEGREES, CROPPED, QUALITY, NOISE = 0.4, 1.5, 6.0, 0.12, 75, 12.0
SPOKEN = re.compile(
    r"\b(?:left|right|mirror|read|letters?|words?|text|writ(?:ten|ing)|digits?|numbers?|clock|map)\b"
    r"|\d|左|右|文字|数字|字母|时钟|地图",
    re.IGNORECASE,
)
# Cells of a contact sheet, in pixels.
CELL, CAPTION = 160, 18


def _rotated(picture: Picture, by: float, rng: random.Random) -> Picture:
    """Turned by some degrees, the corners filled with the mean of the border."""
    edge = np.asarray(picture.convert("RGB"))
    border = np.concatenate([edge[0], edge[-1], edge[:, 0], edge[:, -1]]).mean(axis=0)
    fill = tuple(int(value) for value in border)
    return picture.rotate(by * DEGREES, Pillow.Resampling.BICUBIC, fillcolor=fill)


def _cropped(picture: Picture, by: float, rng: random.Random) -> Picture:
    """A part of the picture, at most CROPPED of each side less, in the size of the whole."""
    width, height = picture.size
    left, top = (rng.random() * abs(by) * CROPPED * side for side in (width, height))
    right, bottom = (side * (1 - abs(by) * CROPPED) for side in (width, height))
    box = (left, top, left + right, top + bottom)
    return picture.resize(picture.size, Pillow.Resampling.BICUBIC, box=box)


def _resaved(picture: Picture, by: float, rng: random.Random) -> Picture:
    """Saved as JPEG and read again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=round(95 - abs(by) * QUALITY))
    with Pillow.open(file) as opened:
        return opened.convert("RGB")


def _noisy(picture: Picture, by: float, rng: random.Random) -> Picture:
    """Gaussian noise of a standard deviation of at most NOISE of 255."""
    chance = np.random.default_rng(rng.getrandbits(64))
    values = np.asarray(picture).astype(np.float64)
    noise = chance.normal(0.0, abs(by) * NOISE, values.shape)
    return Pillow.fromarray((values + noise).round().clip(0, 255).astype(np.uint8))


def _enhanced(kind: Callable[[Picture], ImageEnhance._Enhance], most: float) -> Change:
    return lambda picture, by, rng: kind(picture).enhance(max(0.0, 1 + by * most))


CHANGES: Mapping[str, Change] = {
    "brightness": _enhanced(ImageEnhance.Brightness, FACTOR),
    "contrast": _enhanced(ImageEnhance.Contrast, FACTOR),
    "colour": _enhanced(ImageEnhance.Color, FACTOR),
    "sharpness": _enhanced(ImageEnhance.Sharpness, SHARPNESS),
    "rotate": _rotated,
    "crop": _cropped,
    "jpeg": _resaved,
    "noise": _noisy,
    "flip": lambda picture, by, rng: ImageOps.mirror(picture),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """How strongly pictures are changed, as shares of the strongest, and how alike they stay."""

    weakest: float
    strongest: float
    similarity: float


def image_operation(name: str, bounds: Bounds, refused: Counter[str]) -> Operation:
    """The change `name` of every picture of an example, its text as it is."""

    def operation(example: Example, rng: random.Random) -> list[Example]:
        if not example.images:
            return []
        changed: dict[Image, Image] = {}
        for image in dict.fromkeys(example.images):
            picture = changed_picture(open_picture(image), name, bounds, rng)
            if picture is None:
                refused["unlike the original"] += 1
                return []
            changed[image] = Image("", data=_png(picture))
        return [example.with_images(changed.__getitem__)]

    return operation


def changed_picture(
    picture: Picture, name: str, bounds: Bounds, rng: random.Random
) -> Picture | None:
    """The picture changed; None where even a weak change makes it too unlike what it was."""
    strength = rng.uniform(bounds.weakest, bounds.strongest) * rng.choice((-1.0, 1.0))
    # A mirrored picture is compared with the mirrored one: it is the same but for its sides.
    reference = ImageOps.mirror(picture) if name == "flip" else picture
    for _ in range(TRIES):
        made = CHANGES[name](picture, strength, rng)
        if similarity(reference, made) >= bounds.similarity:
            return made
        strength /= 2
    return None


def similarity(one: Picture, other: Picture) -> float:
    """Mean structural similarity of two pictures of one size, in [-1, 1]; 1 for the same."""
    x, y = _grey(one), _grey(other)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    over = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    under = (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return float((over / under).mean())


def speaks_of_sides(example: Example) -> bool:
    """Whether any text or label speaks of what a mirrored picture would make wrong."""
    texts = [message.text for message in example.messages] + [example.label or ""]
    return any(SPOKEN.search(text) for text in texts)


def contact_sheet(
    examples: Sequence[Example], names: Sequence[str], bounds: Bounds, seed: int
) -> Picture:
    """A picture of pictures: a row an example, as it is and then changed by each of `names`."""
    shown = [example for example in examples if example.images]
    width, height = CELL * (1 + len(names)), (CELL + CAPTION) * len(shown)
    sheet = Pillow.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, example in enumerate(shown):
        picture = open_picture(example.images[0])
        made: dict[str, Picture | None] = {example.id: picture}
        for name in names:
            rng = rng_of(seed, name, example.id)
            made[name] = changed_picture(picture, name, bounds, rng)
        for column, (title, cell) in enumerate(made.items()):
            place = (column * CELL, row * (CELL + CAPTION))
            draw.text((place[0] + 4, place[1] + 2), title if cell else f"{title}: none", "black")
            if cell is not None:
                small = ImageOps.contain(cell, (CELL - 4, CELL - 4))
                sheet.paste(small, (place[0] + 2, place[1] + CAPTION))
    return sheet


def _grey(picture: Picture) -> NDArray[np.float64]:
    scale = SIDE / max(SIDE, *picture.size)
    size = tuple(max(8, round(side * scale)) for side in picture.size)
    small = picture.convert("L").resize((size[0], size[1]), Pillow.Resampling.BOX)
    return np.asarray(small).astype(np.float64) / 255


def _blurred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = gaussian_filter(values, SIGMA)
    return blurred


def _png(picture: Picture) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
