"""Images among token ids: a placeholder becomes as many tokens as the model sees of the image."""

from collections.abc import Sequence
from typing import Protocol

from kilotune.data.example import Image
from kilotune.errors import KilotuneError
from kilotune.rendering.refusals import RenderError


class Pictures(Protocol):
    """What a model's processor makes of images; needs no weights."""

    @property
    def token_id(self) -> int:
        """The token that stands for an image in what the chat template writes."""

    def tokens(self, image: Image) -> Sequence[int]:
        """What that token becomes for `image`. Raises KilotuneError for one it cannot take."""


def expanded(
    ids: Sequence[int], places: Sequence[int], images: Sequence[Image], pictures: Pictures
) -> tuple[list[int], list[int]]:
    """The ids with every placeholder replaced, and `places` (ascending) in them.

    Raises RenderError where an image cannot be read, or where there are not as many placeholders
    as images.
    """
    marks = [place for place, token in enumerate(ids) if token == pictures.token_id]
    if len(marks) != len(images):
        raise RenderError("image-placeholders")
    longer: list[int] = []
    moved = list(places)
    done = 0
    for mark, image in zip(marks, images, strict=True):
        try:
            tokens = pictures.tokens(image)
        except KilotuneError as error:
            raise RenderError("image-unreadable", f"{error.where}: {error.what}") from error
        longer += [*ids[done:mark], *tokens]
        done = mark + 1
        for number, place in enumerate(places):
            if place > mark:
                moved[number] += len(tokens) - 1
    return [*longer, *ids[done:]], moved
