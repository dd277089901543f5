"""What came of a training, as it is on record."""

from dataclasses import dataclass

from kilotune.data.files.writers import Number
from kilotune.models.proof import Gradients


@dataclass(frozen=True, slots=True)
class Difference:
    """Relative differences of a loss, and of its gradient over everything that is trained."""

    loss: Number
    gradient: Number


@dataclass(frozen=True, slots=True)
class Agreement:
    """Which path a run takes and why, with the relative errors of the packed path.

    `gradient_error` is of the norm over all trained parameters. Errors are None where the packed
    path could not be computed at all.
    """

    path: str
    reason: str
    precision: str = ""
    loss_error: float | None = None
    gradient_error: float | None = None

    @property
    def packed(self) -> bool:
        """Whether examples are packed."""
        return self.path == "packed"


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What a run's record says of the cache.

    `states` is the relative difference of the stored states to fresh ones; `restart` is what
    starting from fresh ones changes. `size` is in bytes, `computed` counts renderings.
    """

    used: bool
    reason: str
    below: int = 0
    streamed: int = 0
    size: int = 0
    computed: int = 0
    states: float | None = None
    restart: Difference | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of a training: its log, where it was best and why it ended.

    `tokens` went through it, those of prompts included, each time they did; `generated` ones were
    answered with at its evaluations. What was done before it was stopped and resumed counts too.
    """

    history: tuple[dict[str, float], ...]
    steps: int
    best_step: int
    best_metric: float | None
    stopped: str
    micro_batch_size: int
    agreement: Agreement
    cache: CacheUse
    gradients: Gradients | None
    tokens: int
    generated: int
