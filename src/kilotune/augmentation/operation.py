"""What an operation is, and how what it makes is told from what was read.

An operation sees one example and a source of chance that belongs to that example alone, so what
becomes of it depends on neither the other examples nor their order.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.recipe.functions import own_function

Operation = Callable[[Example, random.Random], list[Example]]


@dataclass(frozen=True, slots=True)
class Draw:
    """One example to work on, and the chance it is worked on with."""

    example: Example
    rng: random.Random


# Many examples at once, for what is only fast in batches: one list for each draw.
Bulk = Callable[[Sequence[Draw]], list[list[Example]]]


def each(operation: Operation) -> Bulk:
    """An operation on single examples as one on many."""
    return lambda draws: [operation(draw.example, draw.rng) for draw in draws]


def rng_of(seed: int, operation: str, example_id: str, copy: int = 0) -> random.Random:
    """The chance of one example under one operation. A text is a seed that no hash salts."""
    return random.Random(f"{seed}/{operation}/{example_id}/{copy}")


def stamped(parent: Example, operation: str, made: Sequence[Example], first: int) -> list[Example]:
    """What `operation` made of `parent`, with ids and origins of its own, numbered from `first`.

    Raises KilotuneError where a label or a group was changed: those are never an operation's.
    """
    for example in made:
        if (example.label, example.group) != (parent.label, parent.group):
            raise KilotuneError(
                f"the operation '{operation}' changed a label or a group",
                where=str(parent.origin),
                fix="Return examples made with example.with_text(...) or dataclasses.replace",
            )
    short = operation.rpartition(":")[2]
    return [
        replace(
            example,
            id=f"{parent.id}+{short}{number}",
            origin=replace(parent.origin, operation=operation, parent=parent.id),
        )
        for number, example in enumerate(made, first)
    ]


def imported(path: str) -> Operation:
    """The user's own operation at `module:function`. Raises KilotuneError if there is none."""
    operation: Operation = own_function(path, path)
    return operation
