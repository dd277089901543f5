"""What is on record of frozen and trained tensors."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gradients:
    """The first step at which each trained tensor had a gradient, and how many steps counted."""

    first: Mapping[str, int]
    steps: int


@dataclass(frozen=True, slots=True)
class FreezeProof:
    """Hashes of every frozen tensor before and after, and which trained tensors moved.

    `first_gradient` is the optimiser step at which each trained one first had a gradient; empty
    where gradients are not to be seen (DeepSpeed).
    """

    frozen: dict[str, tuple[str, str]]
    moved: tuple[str, ...]
    unmoved: tuple[str, ...]
    first_gradient: Mapping[str, int]

    @property
    def changed(self) -> list[str]:
        """Frozen tensors that are not what they were."""
        return [name for name, (before, after) in self.frozen.items() if before != after]
