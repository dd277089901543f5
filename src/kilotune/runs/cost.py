"""What a training and the answers after it took."""

from collections.abc import Iterable
from dataclasses import dataclass

# Tokens, since they are the same however busy the machine is. Less of a difference is none.
CHEAPER = 0.9


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of the clock, tokens trained on (prompts included) and tokens generated."""

    seconds: float
    trained: int
    generated: int

    def cheaper_than(self, other: "Cost") -> bool:
        """Whether it takes at least a tenth fewer tokens, trained and generated together."""
        return self.trained + self.generated < CHEAPER * (other.trained + other.generated)


def total(costs: Iterable[Cost]) -> Cost:
    """Of several together."""
    every = list(costs)
    return Cost(
        round(sum(cost.seconds for cost in every), 2),
        sum(cost.trained for cost in every),
        sum(cost.generated for cost in every),
    )
