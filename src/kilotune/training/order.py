"""Which examples are trained on in an epoch, and in which order."""

import random
from collections.abc import Iterator, Sequence

import torch

from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import blank

# Batches that are shuffled together and then sorted by length.
WINDOW = 4


class Items(torch.utils.data.Dataset[Rendering]):
    """A sequence as the Dataset that the Trainer wants; numbers beyond its end are blanks.

    With `rounds` it is another sequence of the same length in each epoch.
    """

    def __init__(
        self, renderings: Sequence[Rendering], rounds: Sequence[Sequence[int]] = ()
    ) -> None:
        every: list[Sequence[Rendering]] = [[renderings[i] for i in own] for own in rounds]
        self.rounds = every or [renderings]
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Have the items of `epoch`, counted from 0; past the last, the first come again."""
        self.renderings = self.rounds[epoch % len(self.rounds)]
        self.lengths = [len(rendering.token_ids) for rendering in self.renderings]

    def __len__(self) -> int:
        return len(self.renderings)

    def __getitem__(self, index: int) -> Rendering:
        if index < len(self.renderings):
            return self.renderings[index]
        return blank(min(self.renderings, key=lambda r: len(r.token_ids)))


class LengthOrder(torch.utils.data.Sampler[int]):
    """Shuffled anew each epoch, with examples of like length in a batch, so that little is padded.

    The order depends on `seed` and the epoch alone: within a window of a few batches examples are
    sorted by length, and the window's batches shuffled again. Numbers from len(lengths) on stand
    for blanks: they come last, and fill the count up to a multiple of `multiple`, so that every
    process has as many batches as the others without seeing any example twice.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, *, seed: int | None, multiple: int = 1
    ) -> None:
        """With `seed` None the order is always the same, by length alone."""
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.multiple = multiple
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        return iter((*self._examples(), *range(len(self.lengths), len(self))))

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    def _examples(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        if self.seed is None:
            yield from sorted(order, key=self.lengths.__getitem__)
            return
        rng = random.Random(f"{self.seed}/{self.epoch}")
        rng.shuffle(order)
        for window in _cut(order, WINDOW * self.batch_size):
            window.sort(key=self.lengths.__getitem__)
            batches = list(_cut(window, self.batch_size))
            # A batch that is not full stays the last.
            full = [batch for batch in batches if len(batch) == self.batch_size]
            rng.shuffle(full)
            for batch in full + batches[len(full) :]:
                yield from batch


def _cut(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
