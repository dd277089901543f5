"""Trials done, each once and within a budget, by one worker or by many at once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kilotune.ablation.coordinate_search import BudgetSpentError
from kilotune.errors import KilotuneError
from kilotune.progress import Bar, Progress
from kilotune.recipe.schema import AblationSettings, Recipe
from kilotune.runs.cost import Cost, total
from kilotune.runs.trials import Facts, Trial, TrialStore, Unit, Wanted, relevant_settings

# A trial that takes its worker with it so often does so by itself, as one that needs too much
# memory does.
LOSSES = 3


@dataclass(frozen=True, slots=True)
class Came:
    """A trial that is done."""

    wanted: Wanted
    trial: Trial


@dataclass(frozen=True, slots=True)
class Lost:
    """A trial that was begun and went with its worker; `where` says which one that was."""

    wanted: Wanted
    where: str


class Workers(Protocol):
    """Who does trials: a worker does one at a time."""

    def begin(self, wanted: Sequence[Wanted]) -> int:
        """Begin the first of `wanted`, as many as there are free workers for; returns how many."""

    def wait(self) -> Sequence[Came | Lost]:
        """Wait until something has happened; empty where that concerns no trial."""

    def facts(self) -> Facts:
        """What the model has to try."""

    def base_scores(self, recipe: Recipe) -> Mapping[str, float]:
        """How the model as it came answers every example of the folds."""


class Runner:
    """Does trials, each once; counts what they take, and begins none beyond the budget.

    The budget's minutes are those of all trials added up, whoever does them.
    """

    bar: Bar

    def __init__(
        self, workers: Workers, store: TrialStore, budget: AblationSettings, progress: Progress
    ) -> None:
        self.workers, self.store, self.budget, self.progress = workers, store, budget, progress
        self.done: dict[str, Trial] = {}
        self.losses: Counter[str] = Counter()

    def __call__(self, wanted: Sequence[Wanted]) -> list[Trial]:
        """The trials that are `wanted`, in that order, in whichever they come.

        Raises BudgetSpentError once all that the budget allows are done, KilotuneError for a trial
        that loses its worker again and again.
        """
        keys = [_key(one) for one in wanted]
        missing: dict[str, Wanted] = {}
        for key, one in zip(keys, wanted, strict=True):
            if key not in self.done and key not in missing:
                if found := self.store.find(*one):
                    self._count(key, found)
                else:
                    missing[key] = one
        self._do(list(missing.values()))
        return [self.done[key] for key in keys]

    @property
    def cost(self) -> Cost:
        """Of all trials."""
        return total(trial.cost for trial in self.done.values())

    @property
    def overhead(self) -> float:
        """The share of the time that went neither to steps nor to answers."""
        spent = self.cost.seconds
        return sum(trial.overhead for trial in self.done.values()) / spent if spent else 0.0

    def _do(self, waiting: list[Wanted]) -> None:
        running = 0
        while waiting or running:
            spent = self._spent(running)
            if waiting and not spent:
                begun = self.workers.begin(waiting[: self._left(running)])
                waiting, running = waiting[begun:], running + begun
            elif waiting and not running:
                raise BudgetSpentError(spent)
            for event in self.workers.wait():
                running -= 1
                if isinstance(event, Lost):
                    self._mourn(event)
                    # First again, so that a budget of trials is spent on the first ones.
                    waiting.insert(0, event.wanted)
                else:
                    self.store.keep(event.wanted[0], event.trial)
                    self._count(_key(event.wanted), event.trial)

    def _left(self, running: int) -> int | None:
        """How many trials may still be begun; None: any number."""
        limit = self.budget.trials
        return None if limit is None else max(0, limit - len(self.done) - running)

    def _spent(self, running: int) -> str:
        """Which budget allows no further trial, in words; empty where both do."""
        if self._left(running) == 0:
            return f"the budget of {self.budget.trials} trials is spent"
        minutes = self.budget.minutes
        if minutes is not None and self.cost.seconds >= 60 * minutes:
            return f"the budget of {minutes:g} minutes is spent"
        return ""

    def _count(self, key: str, trial: Trial) -> None:
        self.done[key] = trial
        self.bar.advance(note=_title(trial.unit))

    def _mourn(self, lost: Lost) -> None:
        key, title = _key(lost.wanted), _title(lost.wanted[1])
        self.losses[key] += 1
        if self.losses[key] >= LOSSES:
            raise KilotuneError(
                f"a trial ({title}) was begun {LOSSES} times and lost its worker each time",
                where=lost.where,
                fix="See that there is memory enough for it, or give each trial more of a node: "
                "--ray-cpus, --ray-gpus; what is done is kept",
            )
        self.progress.say(f"{title}: its worker is lost ({lost.where}); it is done again")


def _key(wanted: Wanted) -> str:
    recipe, unit = wanted
    return f"{relevant_settings(recipe)} {unit}"


def _title(unit: Unit) -> str:
    return f"fold {unit.fold}, seed {unit.seed}"
