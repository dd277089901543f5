"""Workbenches for an ablation: the one of this process, or those that other processes make."""

from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.ablation.runner import Came
from kilotune.data.folds import Fold
from kilotune.errors import KilotuneError
from kilotune.models.source import Source, locate
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.runs import record, trackers
from kilotune.runs.trials import Facts, Trial, Unit, Wanted
from kilotune.session.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Bench:
    """A workbench, and what is the same for all trials of an ablation.

    `sample` counts the training examples that are asked in each trial; `parent` is the tracker's
    run that a trial belongs to, where it is open in another process.
    """

    workbench: Workbench
    sample: int
    parent: trackers.Parent | None = None

    def run(self, recipe: Recipe, unit: Unit) -> Trial:
        """One trial, mirrored to a tracker of runs where the recipe names one."""
        told, name = recipe.tune.report_to, f"fold {unit.fold}, seed {unit.seed}"
        with trackers.tracked(told, name, recipe, self.parent):
            trial = self.workbench.run(recipe, unit, self.sample)
            held = list(trial.scores.values())
            trackers.note(told, {"held_out.score": sum(held) / len(held)})
        return trial

    def facts(self) -> Facts:
        """What the model has to try."""
        return self.workbench.facts()

    def base_scores(self, recipe: Recipe) -> dict[str, float]:
        """How the model as it came answers every example of the folds."""
        return self.workbench.base_scores(recipe)


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a process on another machine needs to make a bench like everybody's.

    Each looks for the model itself, in its own cache or in the folder of the recipe. `code` is the
    digest of the code that asks.
    """

    prepared: Prepared
    folds: tuple[Fold, ...]
    sample: int
    parent: trackers.Parent | None
    code: str

    def __call__(self) -> Bench:
        """The bench. Raises KilotuneError where the model or the same code is not there."""
        if record.code_digest() != self.code:
            raise KilotuneError(
                "a node of the cluster has other code of kilotune than this machine",
                fix="Install the same version on all; trials of two are not compared",
            )
        source = locate(self.prepared.recipe.model)
        workbench = Workbench(self.prepared, source, self.folds, Silent())
        workbench.facts()  # loads the model: that is no trial's, nor lost with one
        return Bench(workbench, self.sample, self.parent)


class InTurn:
    """One bench in this process: trials are done one by one, in the order asked for."""

    def __init__(
        self, prepared: Prepared, source: Source, folds: Sequence[Fold], sample: int,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.bench = Bench(Workbench(prepared, source, folds, progress), sample)
        self.facts, self.base_scores = self.bench.facts, self.bench.base_scores
        self._next: Wanted | None = None

    def begin(self, wanted: Sequence[Wanted]) -> int:
        """Take the first of `wanted`."""
        self._next = wanted[0]
        return 1

    def wait(self) -> list[Came]:
        """Do what was taken. Raises Interrupted after Ctrl-C."""
        assert self._next is not None
        return [Came(self._next, self.bench.run(*self._next))]
