"""What a frozen vision tower makes of images: computed once for each, then remembered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kilotune.models.lower import active_dropout
from kilotune.models.pretrained import Model, layer_count
from kilotune.models.vision import Eyes, Vision, part_of

# Of the memory that is free, the part that features may take.
FEATURES_SHARE = 4
SEEING = ("merger", "vision")


def open_eyes(vision: Vision, model: Model, limit: int) -> Eyes:
    """How `model` is given images, in training and generation alike.

    Where neither its vision tower nor the merger is trained, features of up to `limit` bytes are
    kept in memory, and an image whose features are there is not opened again.
    """
    if obstacle(model):
        return Eyes(vision, model)
    _remember(vision, model, limit)
    return Eyes(vision, model, by_number=True)


def obstacle(model: Model) -> str:
    """Why features of images are not the same each time or cannot be put in, or nothing."""
    part = part_of(model)
    trained = {part(name) for name, p in model.named_parameters() if p.requires_grad}
    if trained.intersection(SEEING):
        return "its vision tower or merger is trained"
    dropping = active_dropout(model, layer_count(model))
    if any(part(name) in SEEING for name in dropping):
        return "its vision tower has dropout"
    return "" if _owners(model) else "its forward does not ask for features of images"


@dataclass(slots=True)
class _Features:
    """In the place of a model's `get_image_features`: takes pixels, or numbers of images."""

    vision: Vision
    model: Model
    looked: Any
    limit: int
    known: dict[int, Any] = field(default_factory=dict)

    def __call__(self, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if pixel_values.is_floating_point():
            return self.looked(pixel_values, *args, **kwargs)
        return _joined([self._of(number) for number in pixel_values.tolist()])

    def _of(self, number: int) -> Any:
        if number in self.known:
            return self.known[number]
        # Not of inference mode, where generation asks first: training is to use them too.
        with torch.inference_mode(False), torch.no_grad():
            pixels = self.vision.pixels([self.vision.numbered(number)])
            moved = {name: value.to(self.model.device) for name, value in pixels.items()}
            found = _joined([self.looked(**moved, return_dict=True)])
        deep = getattr(found, "deepstack_features", None) or ()
        self.limit -= sum(part.nbytes for parts in (found.pooler_output, *deep) for part in parts)
        if self.limit > 0:
            self.known[number] = found
        return found


def _remember(vision: Vision, model: Model, limit: int) -> None:
    owner = _owners(model)[-1]
    vars(owner).pop("get_image_features", None)  # what another session of the model remembers
    owner.get_image_features = _Features(vision, model, owner.get_image_features, limit)


def _owners(model: Model) -> list[Any]:
    """The modules that are asked for features of images, the innermost last."""
    return [module for module in model.modules() if hasattr(type(module), "get_image_features")]


def _joined(parts: Sequence[Any]) -> Any:
    """The outputs for several images as one: lists of features, one after another."""
    first = parts[0]
    joined = type(first)(pooler_output=[f for part in parts for f in part.pooler_output])
    deep = getattr(first, "deepstack_features", None)
    if deep is not None:  # Qwen3-VL hands on features of several depths
        joined.deepstack_features = [
            [f for part in parts for f in part.deepstack_features[depth]]
            for depth in range(len(deep))
        ]
    return joined
