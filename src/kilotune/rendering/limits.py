"""What a model can be given at most."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.rendering.refusals import RenderError

# The codes of what is beyond them.
BEYOND = ("beyond-length", "beyond-vocabulary")


@dataclass(frozen=True, slots=True)
class Limits:
    """A model has so many `positions`, and tokens numbered below `vocabulary`; None: not known."""

    positions: int | None = None
    vocabulary: int | None = None

    def check(self, token_ids: Sequence[int], room: int = 0) -> None:
        """Raise RenderError for what the model cannot be given, with `room` for an answer."""
        if self.positions is not None and len(token_ids) + room > self.positions:
            taken = f", of which an answer may take {room}" if room else ""
            raise RenderError("beyond-length", f"{self.positions} tokens{taken}")
        highest = max(token_ids, default=0)
        if self.vocabulary is not None and highest >= self.vocabulary:
            raise RenderError("beyond-vocabulary", f"{highest} of {self.vocabulary}")


UNLIMITED = Limits()
