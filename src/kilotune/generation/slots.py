"""Keys and values of a batch that generates: written in place, and ended rows leave.

transformers' own cache is put together anew with every token, which for many short rows takes as
long as the products of a small model; its static one attends over all the room that there is.
"""

from collections.abc import Sequence
from itertools import count

import torch
from transformers.cache_utils import Cache, DynamicLayer

from kilotune.generation.prefix import Prefix


class Slots:
    """Room for the keys and values of rows whose prompts all end before column `width`.

    `more` columns behind it are for what is generated. Before a prompt there are zeros, which the
    attention mask must hide. The `prefix` is copied in front of what is each row's own.
    """

    def __init__(self, rows: int, width: int, more: int, prefix: Prefix) -> None:
        self._rows, self._width, self._columns = rows, width, width + more
        self._prefix = prefix
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def reading(self, first: int, stop: int, length: int) -> Cache:
        """For the forward that reads the rows from `first` to before `stop`, behind the prefix.

        The longest of them has `length` tokens, the prefix included.
        """
        start = self._width - length
        filled = start + len(self._prefix)
        for layer, read in enumerate(self._prefix.layers):
            for buffer, part in zip(self.buffers(layer, *read), read, strict=True):
                buffer[first:stop, :, start:filled] = part
        return self._cache(slice(first, stop), start, filled)

    def going_on(self, rows: int, generated: int) -> Cache:
        """For a forward of the next token of the first `rows` rows, `generated` being there."""
        return self._cache(slice(0, rows), 0, self._width + generated)

    def keep(self, order: Sequence[int], generated: int) -> None:
        """Let the rows in the places `order` be the first ones, in that order.

        Only those are copied that change their place.
        """
        moved = [(old, new) for new, old in enumerate(order) if old != new]
        if not moved:
            return
        old, new = (list(side) for side in zip(*moved, strict=True))
        filled = self._width + generated
        for buffers in self._layers:
            for buffer in buffers:
                buffer[new, :, :filled] = buffer[old, :, :filled]

    def buffers(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of `layer`, made for heads as `keys` and `values` have them if they are new."""
        while len(self._layers) <= layer:
            # Zeros: what is masked has a weight of zero, and would still spread what is not finite.
            k, v = (
                part.new_zeros(self._rows, part.shape[1], self._columns, part.shape[3])
                for part in (keys, values)
            )
            self._layers.append((k, v))
        return self._layers[layer]

    def _cache(self, rows: slice, start: int, filled: int) -> Cache:
        layers = count()

        def layer() -> _Layer:
            return _Layer(self, next(layers), rows, start, filled)

        if self._layers:
            return Cache(layers=[layer() for _ in self._layers])
        return Cache(layer_class_to_replicate=layer)


class _Layer(DynamicLayer):
    """Some rows and columns of one layer's slots, as a model writes and reads them."""

    def __init__(self, slots: Slots, index: int, rows: slice, start: int, filled: int) -> None:
        super().__init__()
        self._slots, self._index = slots, index
        self._rows, self._start, self._filled = rows, start, filled

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write what is new behind what is there, and give both."""
        before, self._filled = self._filled, self._filled + key_states.shape[-2]
        buffers = self._slots.buffers(self._index, key_states, value_states)
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer[self._rows, :, before : self._filled] = new
        seen = slice(self._start, self._filled)
        self.keys, self.values = (buffer[self._rows, :, seen] for buffer in buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """How many columns there are before what comes next."""
        return self._filled - self._start
