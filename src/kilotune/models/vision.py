"""Models that see: what their processor makes of images, and which of their parts is which."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import AutoProcessor, ProcessorMixin

from kilotune.data.example import Image
from kilotune.data.images.pixels import open_picture
from kilotune.errors import KilotuneError
from kilotune.models.pretrained import Model, decoder_layers, sees_images, takes_argument
from kilotune.models.source import Source
from kilotune.recipe.schema import ModelSettings, Part

# What a processor returns beside what it makes of images.
TEXT_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
TOKEN_TYPES, GRID = "mm_token_type_ids", "image_grid_thw"

# What stands between a vision tower and the decoder: Qwen's, LLaVA's, Idefics' and SmolVLM's.
MERGER = re.compile(r"merger|projector|connector")

RopeIndex = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is kept of an image: its tokens, how many of them are its own, its grid, a number."""

    tokens: tuple[int, ...]
    count: int
    grid: torch.Tensor
    number: int


class Vision:
    """The processor of a vision-language model: images to tokens, and to the model's inputs."""

    def __init__(self, processor: Any, where: str) -> None:
        self.processor = processor
        self.where = where
        self._known: dict[Image, _Seen] = {}
        self._images: list[Image] = []

    @property
    def token_id(self) -> int:
        """The token that stands for an image in what the chat template writes."""
        return int(self.processor.image_token_id)

    @property
    def chat_template(self) -> str | None:
        """The processor's own, which knows where images go."""
        template = self.processor.chat_template
        return template if isinstance(template, str) else None

    @property
    def settings(self) -> str:
        """All that decides what becomes of an image, as one text."""
        return str(self.processor.image_processor.to_json_string())

    def tokens(self, image: Image) -> tuple[int, ...]:
        """What one placeholder becomes for `image`: as many tokens as the model sees of it.

        Raises KilotuneError for an image that cannot be read, or that the processor refuses.
        """
        return self._seen(image).tokens

    def grids(self, images: Sequence[Image]) -> torch.Tensor:
        """Patches of each image in time, height and width, (images, 3): what positions need."""
        return torch.cat([self._seen(image).grid for image in images])

    def told_apart(self, token_ids: Sequence[int], images: Sequence[Image]) -> tuple[int, ...]:
        """`token_ids` in which the tokens of one image differ from those of every other.

        `images` are those that stand in them, in order. For comparing texts, not for a model.
        """
        if not images:
            return tuple(token_ids)
        own = iter([self.number(image) for image in images for _ in range(self.count(image))])
        return tuple(-1 - next(own) if token == self.token_id else token for token in token_ids)

    def pixels(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """The model's inputs for `images` in their order, by name: `pixel_values` and the rest.

        Raises KilotuneError as `tokens` does.
        """
        made = self._process(images)
        return {name: value for name, value in made.items() if name not in TEXT_INPUTS}

    def count(self, image: Image) -> int:
        """How many tokens are the image's own; others only stand around it."""
        return self._seen(image).count

    def number(self, image: Image) -> int:
        """A number that no other image has."""
        return self._seen(image).number

    def numbered(self, number: int) -> Image:
        """The image that `number` is of."""
        return self._images[number]

    def starts(self, token_ids: Sequence[int], images: Sequence[Image]) -> dict[int, Image]:
        """Where in `token_ids` the own tokens of each of `images` begin."""
        if not images:
            return {}
        places = [place for place, token in enumerate(token_ids) if token == self.token_id]
        ends = accumulate(self.count(image) for image in images)
        return {places[end - self.count(i)]: i for end, i in zip(ends, images, strict=True)}

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Save the processor into `folder`, with `tokenizer` and its chat template."""
        self.processor.tokenizer = tokenizer
        self.processor.chat_template = tokenizer.chat_template
        self.processor.save_pretrained(folder)

    def _seen(self, image: Image) -> "_Seen":
        if image not in self._known:
            made = self._process([image])
            tokens = tuple(made["input_ids"][0].tolist())
            grid = made.get("image_grid_thw", torch.zeros(1, 3, dtype=torch.long))
            count = tokens.count(self.token_id)
            self._known[image] = _Seen(tokens, count, grid, len(self._images))
            self._images.append(image)
        return self._known[image]

    def _process(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        pictures = [open_picture(image) for image in images]
        try:
            return dict(
                self.processor(
                    text=self.processor.image_token * len(pictures),
                    images=pictures,
                    add_special_tokens=False,
                    return_tensors="pt",
                )
            )
        except ValueError as error:
            named = ", ".join(image.source or "in the file" for image in images[:3])
            raise KilotuneError(
                f"an image that the model's processor refuses ({error})",
                where=named,
                fix="Change the image, or leave its row out",
            ) from error


class Eyes:
    """How a loaded model is given images, beside token ids in which their tokens stand."""

    def __init__(self, vision: Vision, model: Model, *, by_number: bool = False) -> None:
        """With `by_number` pixels are left out, for a model that remembers their features."""
        self.vision = vision
        self._by_number = by_number
        self._rope = rope_index(model)
        self._typed = takes_argument(model, TOKEN_TYPES)
        self._grid = takes_argument(model, GRID)

    def inputs(self, images: Sequence[Image], input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """What goes into the model beside `input_ids` (B, L), by name: nothing without images.

        `images` are those of all rows, in order.
        """
        if not images:
            return {}
        made = self._shown(images)
        return {**made, TOKEN_TYPES: self._types(input_ids)} if self._typed else made

    def positions(
        self, images: Sequence[Image], input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor | None:
        """`position_ids` (3, B, L) as the model itself counts them beside images.

        None where it counts tokens alone, as those but Qwen2-VL's kind do (Wang et al. 2024,
        section 2.1), or where there are no images.
        """
        if self._rope is None or not images:
            return None
        positions, _ = self._rope(
            input_ids=input_ids,
            mm_token_type_ids=self._types(input_ids),
            image_grid_thw=self.vision.grids(images),
            attention_mask=attention_mask,
        )
        return positions

    def _shown(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        if not self._by_number:
            return self.vision.pixels(images)
        shown = {"pixel_values": torch.tensor([self.vision.number(image) for image in images])}
        # Positions are counted by it; without, those behind an image would be of a text alone.
        return {**shown, GRID: self.vision.grids(images)} if self._grid else shown

    def _types(self, input_ids: torch.Tensor) -> torch.Tensor:
        return (input_ids == self.vision.token_id).long()


def load_vision(source: Source, *, needed: bool) -> Vision | None:
    """The processor of `source`; None for a model of texts alone.

    Raises KilotuneError where it is `needed` and cannot be had, or for pixel limits that it does
    not know.
    """
    trust = source.settings.trust_remote_code
    try:
        if not source.sees_images:
            return None
        processor = AutoProcessor.from_pretrained(source.place, trust_remote_code=trust)
    except (OSError, ValueError, ImportError) as error:
        if not needed:
            return None
        raise KilotuneError(
            f"the model's image processor cannot be loaded ({_first_sentence(error)})",
            where=source.place,
            fix="Install the package that it names (kilotune[vision] has what most need); the "
            "folder must hold the processor's configuration",
        ) from error
    if not isinstance(processor, ProcessorMixin):  # a folder without any gives its tokenizer
        return None
    _limit_pixels(processor.image_processor, source.settings)
    return Vision(processor, source.place)


def _first_sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0]


def _limit_pixels(images: Any, settings: ModelSettings) -> None:
    """Put the recipe's limits into an image processor that takes any size between two."""
    limits = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if not given:
        return
    # Two edges that are areas: how all such processors write their limits.
    if not set(limits) <= set(dict(images.size)) or not all(images.size[edge] for edge in limits):
        raise KilotuneError(
            "this model's image processor makes the same number of tokens of every image, or "
            "splits it in its own way",
            where="model.min_pixels, model.max_pixels",
            fix="Leave them out; they are for models such as Qwen2-VL",
        )
    images.size = type(images.size)(**{**dict(images.size), **given})


def rope_index(model: Model) -> RopeIndex | None:
    """The model's own count of positions in several parts; None where they are plain numbers."""
    counting = (m.get_rope_index for m in model.modules() if hasattr(type(m), "get_rope_index"))
    return next(counting, None)


def forget_positions(model: Model) -> None:
    """Let the next generation count from its own images.

    Qwen2-VL's kind keeps what the last one's images took up, and would add it to a prompt that
    goes on from a key/value cache.
    """
    for module in model.modules():
        if vars(module).get("rope_deltas") is not None:
            module.rope_deltas = None


def part_of(model: Model) -> Callable[[str], Part]:
    """What tells of the name of a module or parameter of `model` which part it belongs to.

    Language is what stands beside the decoder's layers, and the output head; of the rest the
    merger is what hands images on, by the names that models have for it.
    """
    home = decoder_layers(model)[0].rpartition(".")[0]
    seeing = sees_images(model.config)

    def part(name: str) -> Part:
        if not seeing or name.startswith(f"{home}.") or "lm_head" in name.split("."):
            return "language"
        return "merger" if any(map(MERGER.search, name.split("."))) else "vision"

    return part


def parameters_of(model: Model, part: Part) -> list[torch.nn.Parameter]:
    """The parameters of one part. Raises KilotuneError where there is none."""
    named = part_of(model)
    found = [p for name, p in model.named_parameters() if named(name) == part]
    return found or _no_part(model, part)


def linears_of(model: Model, part: Part) -> list[str]:
    """Names of the linear layers of one part. Raises KilotuneError where there is none."""
    named = part_of(model)
    linear = (name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear))
    return [name for name in linear if named(name) == part] or _no_part(model, part)


def _no_part(model: Model, part: Part) -> NoReturn:
    raise KilotuneError(
        f"the model has no part '{part}' to tune",
        where=f"tune.parts ({type(model).__name__})",
        fix="Leave it out; parts are those of vision-language models",
    )
