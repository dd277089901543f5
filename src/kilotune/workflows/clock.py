"""What each stage of a run took, kept as it comes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kilotune.runs import record
from kilotune.runs.cost import Cost
from kilotune.runs.documents import EnvironmentDocument, JudgedEnvironmentDocument
from kilotune.runs.record import RunFolder
from kilotune.self_training.rounds import PseudoLabelled
from kilotune.session.model_session import Session
from kilotune.training.tuning_result import Tuning


class Clock:
    """Seconds of each stage, kept in the run's `environment.json` as they come.

    Those of a run that was stopped are gone on with: they add up, as tokens do.
    """

    def __init__(self, folder: RunFolder, found: PseudoLabelled | None) -> None:
        self._folder = folder
        # The leader alone has written it, and may not have yet.
        known = folder.read(EnvironmentDocument) if folder.writes else record.environment()
        self._known, self.seconds = known, dict(known.seconds)
        self._before = found.outcome.cost if found else Cost(0, 0, 0)
        if found:
            self.seconds["pseudo-labels"] = found.outcome.cost.seconds
        self._last = time.perf_counter()

    @contextmanager
    def lap(self, stage: str) -> Iterator[None]:
        """The time since the last lap goes to `stage`, once it is over."""
        yield
        self.note(stage)

    def note(self, stage: str) -> None:
        """The time until now goes to `stage`, which may go on."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 2)
        self._last = now
        self._folder.write(self._known.model_copy(update={"seconds": self.seconds}))

    def environment(
        self, session: Session, tuning: Tuning, spent: Cost
    ) -> JudgedEnvironmentDocument:
        """All that `environment.json` holds in the end: when it began, what it took, and where.

        `spent` is what tuning on folds came to.
        """
        model = session.tunable.model
        tokens = {
            "trained": self._before.trained + tuning.tokens + spent.trained,
            "generated": self._before.generated + session.spent.generated + spent.generated,
        }
        return JudgedEnvironmentDocument(
            **dict(record.environment(self._known.started, self.seconds, tokens)),
            dtype=str(model.dtype),
            device=str(model.device),
            threads=torch.get_num_threads(),
        )
