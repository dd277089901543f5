"""Many workers at once, made up: what comes in any order is found as if it came in one."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kilotune.ablation.coordinate_search import Ablation, BudgetSpentError, climb
from kilotune.ablation.runner import Came, Lost, Runner
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.schema import AblationSettings, Recipe
from kilotune.runs.trials import Facts, TrialStore, Unit, Wanted
from tests.ablation.test_coordinate_search import FACTS, Trials, base, question, rate_skill

ASKED = question(only=("tune.learning_rate", "tune.epochs", "tune.rank"))
START = base("tune.learning_rate=1e-5")


class Many:
    """`count` workers, of which a random one is done next; every so often one is lost."""

    def __init__(self, count: int, *, seed: int = 0, losing: float = 0.0) -> None:
        self.count, self.losing, self.chance = count, losing, random.Random(seed)
        self.made = Trials(rate_skill)
        self.running: list[Wanted] = []
        self.most = self.lost = 0
        self.begun: Counter[str] = Counter()

    def begin(self, wanted: Sequence[Wanted]) -> int:
        taken = wanted[: self.count - len(self.running)]
        self.running += taken
        self.begun.update(f"{recipe.model_dump_json()} {unit}" for recipe, unit in taken)
        self.most = max(self.most, len(self.running))
        return len(taken)

    def wait(self) -> list[Came | Lost]:
        if self.chance.random() < 0.2:
            return []  # something else has happened
        one = self.running.pop(self.chance.randrange(len(self.running)))
        if self.chance.random() < self.losing:
            self.lost += 1
            return [Lost(one, "node 2")]
        return [Came(one, self.made.one(*one))]

    def facts(self) -> Facts:
        return FACTS

    def base_scores(self, recipe: Recipe) -> dict[str, float]:
        raise AssertionError("labels have another floor")


class Lines(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


class Count:
    steps = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps


def runner(folder: Path, workers: Many, lines: Lines | None = None, **budget: float) -> Runner:
    settings = AblationSettings.model_validate(budget)
    made = Runner(workers, TrialStore(folder, "films"), settings, lines or Lines())
    made.bar = Count()
    return made


def climbed(run: Runner) -> Ablation:
    return climb(START, ASKED, run, lambda state: None)


@pytest.fixture(scope="module")
def alone() -> Ablation:
    """What the same trials come to one by one."""
    return climb(START, ASKED, Trials(rate_skill), lambda state: None)


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (4, 1), (4, 2), (64, 3)])
def test_the_table_is_the_same_in_whichever_order_trials_come(
    count: int, seed: int, alone: Ablation, tmp_path: Path
) -> None:
    workers = Many(count, seed=seed)
    run = runner(tmp_path, workers)
    assert climbed(run) == alone
    # All units of the base recipe at once, or as many as there are workers.
    assert workers.most == min(count, len(ASKED.units))
    assert set(workers.begun.values()) == {1}
    assert run.bar.steps == len(run.done) == len(list(tmp_path.iterdir()))  # type: ignore[attr-defined]


def test_a_trial_that_lost_its_worker_is_done_again_and_that_is_said(
    alone: Ablation, tmp_path: Path
) -> None:
    workers, lines = Many(4, seed=1, losing=0.1), Lines()
    run = runner(tmp_path, workers, lines)
    assert climbed(run) == alone
    assert run.losses.total() == workers.lost > 3
    assert len(lines.said) == workers.lost
    assert lines.said[0].endswith("its worker is lost (node 2); it is done again")
    assert sum(workers.begun.values()) == len(run.done) + workers.lost


def test_a_trial_that_loses_every_worker_ends_it(tmp_path: Path) -> None:
    workers = Many(1, losing=1.0)
    with pytest.raises(KilotuneError, match=r"fold 0, seed 0\) was begun 3 times and lost its"):
        climbed(runner(tmp_path, workers))
    assert sum(workers.begun.values()) == 3


def test_a_budget_of_trials_is_spent_on_the_first_ones_whatever_comes_first(
    tmp_path: Path,
) -> None:
    sequential = Trials(rate_skill, limit=20)
    ended = climb(START, ASKED, sequential, lambda state: None)
    workers = Many(8, seed=5, losing=0.1)
    run = runner(tmp_path, workers, trials=20)
    assert climbed(run) == ended
    assert set(workers.made.done) == set(sequential.done)
    assert sum(workers.begun.values()) == 20 + workers.lost


def test_when_the_time_is_spent_no_more_are_begun_and_those_under_way_are_kept(
    tmp_path: Path,
) -> None:
    workers = Many(4, seed=6)  # a trial takes a second
    run = runner(tmp_path, workers, minutes=0.1)
    with pytest.raises(BudgetSpentError, match=r"the budget of 0\.1 minutes is spent"):
        run([(START, unit) for unit in ASKED.units])
    assert 6 <= len(run.done) <= 6 + 3
    assert workers.running == []
    assert len(list(tmp_path.iterdir())) == len(run.done) == sum(workers.begun.values())


def test_what_was_stopped_is_gone_on_with_by_other_workers(alone: Ablation, tmp_path: Path) -> None:
    first, rest = Many(3, seed=7), Many(5, seed=8)
    ended = climbed(runner(tmp_path, first, trials=33))
    assert ended.ended.startswith("the budget of 33 trials is spent")
    assert climbed(runner(tmp_path, rest)) == alone
    assert not set(first.begun) & set(rest.begun)


def test_the_same_trial_asked_for_twice_is_done_once(tmp_path: Path) -> None:
    workers = Many(2)
    one, other = (START, Unit(0, 0)), (START, Unit(1, 0))
    found = runner(tmp_path, workers)([one, other, one])
    assert [trial.unit for trial in found] == [Unit(0, 0), Unit(1, 0), Unit(0, 0)]
    assert sum(workers.begun.values()) == 2
