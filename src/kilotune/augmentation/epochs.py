"""Other examples in each epoch, all of them made before the first.

What an epoch trains on depends on the seed and the epoch's number alone, so a run that goes on
has the same examples in the same epoch, and the hidden-state cache can hold those of all epochs.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce

from kilotune.augmentation.filters import Judges
from kilotune.augmentation.model_protocols import Models
from kilotune.augmentation.operation import rng_of
from kilotune.augmentation.policy import WRITTEN, Augmented, Count, augment
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import AugmentSettings


def augment_epochs(
    train: Sequence[Example],
    held_out: Sequence[Example],
    settings: AugmentSettings,
    epochs: int,
    *,
    seed: int,
    progress: Progress,
    judges: Judges | None = None,
    models: Models | None = None,
) -> Augmented:
    """What `augment` makes, anew for each of `epochs` and as many in each.

    The first epoch's are those of `augment`. Epochs must be of one size, so where filters left
    more than in the poorest epoch, the rest is `uneven`, drawn by chance. Raises KilotuneError as
    `augment` does, and for what models write.
    """
    if written := [how.op for how in settings.operations if how.op in WRITTEN]:
        raise KilotuneError(
            f"models make these, which takes too long for every epoch: {', '.join(written)}",
            where="augment.fresh",
            fix="Set augment.fresh=false, or leave these operations out",
        )
    make = partial(augment, train, held_out, settings, judges=judges, models=models)
    rounds = [
        make(seed=_seed(seed, epoch), progress=Silent() if epoch > 1 else progress)
        for epoch in range(1, epochs + 1)
    ]
    least = min(len(made.examples) for made in rounds)
    rounds = [_first(made, least, seed) for made in rounds]
    examples = [_of_epoch(e, n) for n, made in enumerate(rounds, 1) for e in made.examples]
    counts = reduce(_added, (made.counts for made in rounds))
    return Augmented(tuple(examples), counts, epochs)


def rounds_of(train: Sequence[Example]) -> list[list[int]]:
    """The numbers of the examples that each epoch trains on; one list where all take all."""
    epochs = max((example.origin.epoch for example in train), default=0) or 1
    return [
        [i for i, example in enumerate(train) if example.origin.epoch in (0, epoch)]
        for epoch in range(1, epochs + 1)
    ]


def _seed(seed: int, epoch: int) -> int:
    return seed if epoch == 1 else random.Random(f"{seed}/epoch {epoch}").getrandbits(48)


def _first(made: Augmented, count: int, seed: int) -> Augmented:
    """`count` of what was made, in its order; the others counted as `uneven`."""
    drawn = sorted(made.examples, key=lambda e: rng_of(seed, "uneven", e.id).random())
    out = drawn[count:]
    lost = {example.id for example in out}
    by_operation = Counter(example.origin.operation for example in out)
    counts = {
        name: replace(
            found,
            kept=found.kept - by_operation[name],
            taken={**found.taken, "uneven": by_operation[name]},
        )
        if by_operation[name]
        else found
        for name, found in made.counts.items()
    }
    return Augmented(tuple(e for e in made.examples if e.id not in lost), counts)


def _of_epoch(example: Example, epoch: int) -> Example:
    origin = replace(example.origin, epoch=epoch)
    return replace(example, id=f"{example.id}@{epoch}", origin=origin)


def _added(one: Mapping[str, Count], other: Mapping[str, Count]) -> dict[str, Count]:
    """The counts of two epochs together."""
    return {
        name: Count(
            found.asked + other[name].asked,
            found.made + other[name].made,
            found.kept + other[name].kept,
            dict(Counter(found.refused) + Counter(other[name].refused)),
            dict(Counter(found.taken) + Counter(other[name].taken)),
        )
        for name, found in one.items()
    }
