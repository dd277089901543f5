"""What models are asked: token ids, and the images among them."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import Image
from kilotune.models.vision import Eyes


@dataclass(frozen=True, slots=True)
class Prompts:
    """The token ids of each prompt and, if any has some, the images of each, seen by `eyes`."""

    token_ids: Sequence[Sequence[int]]
    images: Sequence[Sequence[Image]] = ()
    eyes: Eyes | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def pictured(self) -> bool:
        """Whether any of them has an image."""
        return any(self.images)

    def of(self, rows: Sequence[int], start: int = 0) -> "Prompts":
        """Those numbered `rows`, each without its first `start` tokens."""
        ids = [self.token_ids[row][start:] for row in rows]
        return Prompts(ids, [self.images[row] for row in rows] if self.pictured else (), self.eyes)

    def shown(self) -> list[Image]:
        """All their images, in order."""
        return [image for images in self.images for image in images]
