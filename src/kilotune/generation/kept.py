"""Scoring that starts above the frozen layers, for texts that many tuned models are asked about.

The models of all folds, seeds and rounds differ in their upper layers alone. What enters the lowest
trained one is kept when a text is first scored; the models after it compute the layers from there.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from kilotune.models.lower import active_dropout, bypassed, entering, first_trained_layer
from kilotune.models.pretrained import Model
from kilotune.system.free_memory import free_memory

# Of the memory that is free, the part that states may take.
SHARE = 8


@dataclass(slots=True)
class KeptStates:
    """States that enter layer `below`, by a digest of the tokens they are made of.

    For models that are the same under `below`, which is for the caller to see to. `limit` is in
    bytes; rows for which there is no room are computed whole each time.
    """

    below: int
    limit: int
    size: int = 0
    rows: dict[bytes, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model) -> "KeptStates | None":
        """None where no states stay the same: the lowest layer is trained, or something drops."""
        below = first_trained_layer(model)
        if not below or active_dropout(model, below):
            return None
        return cls(below, free_memory() // SHARE)

    @contextmanager
    def starting(
        self, model: Model, names: Sequence[bytes], lengths: Sequence[int]
    ) -> Iterator[torch.Tensor | None]:
        """Inside the `with`, `model` starts at layer `below` with the states that are yielded.

        They are (rows, longest, width), padded on the left with zeros. None where one of the rows
        is not known: then the model is whole, and what it is given by the caller is kept.
        """
        known = [self.rows.get(name) for name in names]
        if not any(row is None for row in known):
            with bypassed(model, self.below):
                yield self._padded([row for row in known if row is not None]).to(model.device)
            return
        with entering(model, self.below) as entered:
            yield None
        for name, length, row in zip(names, lengths, entered[-1], strict=True):
            own = row[-length:]
            if name not in self.rows and self.size + own.nbytes <= self.limit:
                self.size += own.nbytes
                self.rows[name] = own.to("cpu", copy=True)

    def forget(self) -> None:
        """Let go of all of them, and keep no more."""
        self.rows.clear()
        self.size = self.limit = 0

    @staticmethod
    def _padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
        longest = max(map(len, rows))
        states = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
        for place, row in enumerate(rows):
            states[place, longest - len(row) :] = row
        return states


def row_name(*parts: Sequence[int]) -> bytes:
    """A digest of numbers, parts told apart."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + array("q", part).tobytes())
    return made.digest()
