"""TPE as the driver of an experiment, with trials that are made up."""

from kilotune.ablation.coordinate_search import Ablation
from kilotune.ablation.tpe import search
from kilotune.recipe.schema import Recipe
from tests.ablation.test_coordinate_search import Trials, base, question

ASKED = question(
    factors={"tune.learning_rate": [1e-5, 5e-4], "tune.rank": [4, 8], "tune.epochs": [1, 3]}
)


def skill(recipe: Recipe) -> float:
    rate = {1e-5: 0.55, 5e-4: 0.8}.get(recipe.tune.learning_rate, 0.6)
    return rate + (0.1 if recipe.tune.rank == 4 else 0.0)  # type: ignore[union-attr]


def ran(run: Trials, candidates: int = 8) -> Ablation:
    return search(
        base("tune.learning_rate=1e-5"), ASKED, run, lambda state: None,
        candidates=candidates, seed=0,
    )  # fmt: skip


def test_several_factors_are_set_at_once_and_judged_as_one_family() -> None:
    found = ran(Trials(skill))
    assert (found.best.tune.learning_rate, found.best.tune.rank) == (5e-4, 4)  # type: ignore[union-attr]
    (rung,) = found.rungs
    adopted = next(tried for tried in rung.tried if tried.decision == "adopted")
    assert set(adopted.changes) >= {"tune.learning_rate", "tune.rank"}
    assert adopted.reason.endswith(f"one of {len(rung.tried)} compared")
    assert found.ended == "8 suggestions were tried"


def test_a_search_that_was_stopped_comes_to_the_same_suggestions() -> None:
    whole = ran(Trials(skill))
    run = Trials(skill)
    for limit in (20, 40, None):
        run.limit = limit
        found = ran(run)
    assert found == whole
    assert set(run.counts.values()) == {1}


def test_a_budget_leaves_what_was_finished() -> None:
    found = ran(Trials(skill, limit=50))
    assert found.ended == "the budget of 50 trials is spent"
    assert all(t.trials == 15 or "surely worse" in t.reason for t in found.rungs[0].tried)
