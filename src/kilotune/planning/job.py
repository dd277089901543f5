"""One training to be planned: its sizes, and the paths on which it can be computed."""

import math
from dataclasses import dataclass
from enum import StrEnum

from kilotune.models.size import ModelSize, Trained
from kilotune.planning.workload import Work
from kilotune.recipe.schema import TuneSettings


class ExecutionPath(StrEnum):
    """How the same training is computed, with the same result.

    `padded` computes every example whole; `shared` what examples begin with once a micro-batch;
    `cached` also starts from stored hidden states below the lowest trained layer, and `streamed`
    leaves those lower layers on disk.
    """

    PADDED = "padded"
    SHARED = "shared"
    CACHED = "cached"
    STREAMED = "streamed"

    @property
    def from_states(self) -> bool:
        """Whether stored hidden states stand in for the layers below the lowest trained one."""
        return self in (ExecutionPath.CACHED, ExecutionPath.STREAMED)


@dataclass(frozen=True, slots=True)
class Job:
    """One training: a model's sizes, what of it is trained, on how much, and how.

    `general` says that general questions are answered by the model before and after.
    """

    size: ModelSize
    trained: Trained
    work: Work
    tune: TuneSettings
    quantization: str = "none"
    general: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps if training does not stop early."""
        return math.ceil(math.ceil(self.work.train / self.tune.batch_size) * self.tune.passes)

    def paths(self) -> list[ExecutionPath]:
        """The paths that differ for this job."""
        paths = [ExecutionPath.PADDED]
        if self.packed(ExecutionPath.SHARED):
            paths.append(ExecutionPath.SHARED)
        if self.trained.lowest > 0:
            paths.append(ExecutionPath.CACHED)
            if self.quantization == "none":
                paths.append(ExecutionPath.STREAMED)
        return paths

    def packed(self, path: ExecutionPath) -> bool:
        """Whether `path` lays examples end to end, what they begin with once.

        With dropout examples are padded: a shared beginning would share its mask among them.
        """
        dropout = getattr(self.tune, "lora_dropout", 0.0)
        return path is not ExecutionPath.PADDED and not dropout
