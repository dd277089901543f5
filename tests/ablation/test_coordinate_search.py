"""The logic of an ablation, with trials that are made up: what is tried, dropped and adopted."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kilotune.ablation.coordinate_search import (
    Ablation,
    BudgetSpentError,
    Question,
    climb,
    hopeless,
    stages,
    try_rung,
    units_of,
)
from kilotune.ablation.ladder import (
    LADDER,
    check_factors,
    check_one_factor,
    factors_of,
    label_of,
    order,
    variants,
)
from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Figure, Unavailable
from kilotune.recipe.difference import SettingChange, differences
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.cost import Cost
from kilotune.runs.trials import Facts, Trial, Unit, Wanted

FACTS = Facts(
    "classify",
    30,
    ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj"),
    labels=("bad_film", "good"),
    cleanings=("duplicates",),
)
EXAMPLES = [f"data:{i}" for i in range(200)]
Skill = Callable[[Recipe], float]


def base(*overrides: str) -> Recipe:
    settled = ["tune.epochs=3", "tune.learning_rate=5e-4", *overrides]
    return load_recipe(settings={"data": {"train": "/x.csv"}}, overrides=settled)


def question(**changes: Any) -> Question:
    given = {"units": units_of(5, (0, 1, 2)), "task": "classify", "facts": FACTS}
    floor = {id: float(i % 2) for i, id in enumerate(EXAMPLES)}
    return Question(**{**given, "floor": floor, **changes})


class Trials:
    """Trials that answer right with the probability that `skill` gives a recipe; each once."""

    def __init__(self, skill: Skill, *, trained: float = 1.0, limit: int | None = None) -> None:
        self.skill, self.trained, self.limit = skill, trained, limit
        self.counts: Counter[tuple[str, Unit]] = Counter()
        self.done: dict[tuple[str, Unit], Trial] = {}

    def __call__(self, wanted: Sequence[Wanted]) -> list[Trial]:
        return [self.one(recipe, unit) for recipe, unit in wanted]

    def one(self, recipe: Recipe, unit: Unit) -> Trial:
        key = (recipe.model_dump_json(), unit)
        if key in self.done:
            return self.done[key]
        if self.limit is not None and len(self.done) >= self.limit:
            raise BudgetSpentError(f"the budget of {self.limit} trials is spent")
        self.counts[key] += 1
        skill = self.skill(recipe)
        held = [id for i, id in enumerate(EXAMPLES) if i % 5 == unit.fold]
        # An example is as hard for every recipe; the seed adds a little chance.
        scores = {
            id: float(random.Random(id).random() < skill + random.Random(f"{key}").gauss(0, 0.01))
            for id in held
        }
        cost = Cost(1.0, round(1000 * recipe.tune.epochs), 10)
        self.done[key] = Trial(
            unit, scores, {}, {"t": float(self.trained)}, (2.0, 0.5), (0.6, 0.5), cost
        )
        return self.done[key]


def rate_skill(recipe: Recipe) -> float:
    return {5e-6: 0.5, 1e-5: 0.52, 1e-4: 0.6, 5e-4: 0.9}.get(recipe.tune.learning_rate, 0.6)


def ran(run: Trials, start: Recipe, asked: Question | None = None) -> tuple[Ablation, list[Recipe]]:
    seen: list[Recipe] = []
    found = climb(start, asked or question(), run, lambda state: seen.append(state.best))
    return found, seen


def test_the_better_value_is_adopted_and_the_rest_of_the_ladder_starts_from_it() -> None:
    run = Trials(rate_skill)
    found, seen = ran(run, base("tune.learning_rate=1e-5"))
    assert found.best.tune.learning_rate == 5e-4
    rung = next(r for r in found.rungs if r.factor == "tune.learning_rate")
    assert (rung.before, rung.adopted) == ("1e-05", "0.0005")
    by_value = {tried.value: tried for tried in rung.tried}
    assert by_value["0.0005"].decision == "adopted"
    assert by_value["0.0005"].trials == 15
    assert by_value["0.0005"].reason.endswith("one of 6 compared")  # the whole rung is a family
    assert by_value["5e-06"].decision == "dropped"
    assert by_value["5e-06"].trials < 15
    for later in found.rungs[found.rungs.index(rung) + 1 :]:
        for tried in later.tried:
            assert "tune.learning_rate" not in tried.changes
    assert found.ended == "every factor was tried"
    assert {rung.factor for rung in found.rungs} == set(LADDER)
    assert set(run.counts.values()) == {1}
    assert seen[-1] == found.best


def test_every_candidate_differs_from_the_best_in_its_factor_alone() -> None:
    found, _ = ran(Trials(rate_skill), base())
    for rung in found.rungs:
        for tried in rung.tried:
            assert tried.changes
            assert all(n == rung.factor or n.startswith(f"{rung.factor}.") for n in tried.changes)
    with pytest.raises(KilotuneError, match=r"a change of tune\.rank changes seed too"):
        check_one_factor(
            {"tune.rank": SettingChange(8, 4), "seed": SettingChange(0, 1)}, "tune.rank"
        )


def test_a_cheaper_value_that_is_as_good_is_adopted() -> None:
    def run(wanted: Sequence[Wanted]) -> list[Trial]:
        return [
            Trial(
                unit, {str(i): float(i % 2) for i in range(unit.fold, 3000, 5)}, {}, {}, (), (),
                Cost(1.0, round(1000 * recipe.tune.epochs), 0),
            )
            for recipe, unit in wanted
        ]  # fmt: skip

    start = base("tune.epochs=3")
    rung, best = try_rung(start, "tune.epochs", variants(start, "tune.epochs", FACTS, {}),
        question(), run)  # fmt: skip
    assert (rung.adopted, best.tune.epochs) == ("1", 1)
    decisions = {tried.value: tried.decision for tried in rung.tried}
    assert decisions == {"1": "adopted", "2": "dropped", "5": "dropped"}


def test_nothing_is_adopted_where_nothing_differs_but_the_cheaper() -> None:
    asked = question(only=("tune.epochs", "tune.lora_alpha"))
    always = dict.fromkeys(EXAMPLES, 1.0)
    run = Trials(lambda recipe: 2.0)  # all right, whatever the recipe
    found, _ = ran(run, base(), asked)
    assert set(always) == set(asked.floor)
    by_factor = {rung.factor: rung for rung in found.rungs}
    alpha = by_factor["tune.lora_alpha"]
    assert alpha.adopted is None
    assert {t.decision for t in alpha.tried} <= {"keep", "dropped"}
    # 200 examples without a single difference: an interval of at least a point remains.
    assert found.best.tune.epochs == 3
    assert by_factor["tune.epochs"].tried[0].decision in {"keep", "dropped"}


def test_a_value_that_is_worse_is_given_few_trials() -> None:
    run = Trials(lambda r: 0.9 if r.tune.learning_rate == 5e-4 else 0.1)
    found, _ = ran(run, base(), question(only=("tune.learning_rate",)))
    (rung,) = found.rungs
    assert {tried.reason for tried in rung.tried} == {"surely worse after 1 trial"}
    assert len(run.done) == 15 + 6
    assert found.best == base()


def test_halving_keeps_the_better_half_and_a_point_for_the_simpler() -> None:
    def figure(value: float) -> Figure:
        return Figure(value, value - 0.1, value + 0.1)

    gains = {"a": figure(0.02), "b": figure(0.03), "c": figure(0.025), "d": figure(-0.2)}
    plain = dict.fromkeys(gains, False)
    assert hopeless(plain, gains, 2) == {
        "d": "surely worse after 2 trials", "a": "in the worse half after 2 trials",
    }  # fmt: skip
    assert set(hopeless({**plain, "a": True}, gains, 2)) == {"d", "c"}
    assert hopeless(plain, {"a": figure(0.0)}, 1) == {}  # the last one stays
    assert hopeless(plain, {**gains, "b": Unavailable("4 examples")}, 1) == {}
    assert stages(15) == [1, 2, 4, 8, 15]
    assert stages(4) == [1, 2, 4]
    assert units_of(2, (0, 5)) == (Unit(0, 0), Unit(1, 0), Unit(0, 5), Unit(1, 5))


def test_a_budget_ends_it_and_what_was_best_stands() -> None:
    whole, _ = ran(Trials(rate_skill), base("tune.learning_rate=1e-5"))
    run = Trials(rate_skill, trained=0.0, limit=60)
    found, seen = ran(run, base("tune.learning_rate=1e-5"))
    assert len(run.done) == 60
    assert found.ended.startswith("the budget of 60 trials is spent; not tried: ")
    assert found.best.tune.learning_rate == whole.best.tune.learning_rate == 5e-4
    assert seen[-1] == found.best
    nothing, _ = ran(Trials(rate_skill, limit=3), base())
    assert (nothing.best, nothing.rungs, nothing.verdict) == (base(), (), None)


def test_what_was_stopped_anywhere_comes_to_the_same_end_without_a_trial_twice() -> None:
    start = base("tune.learning_rate=1e-5")
    asked = question(only=("tune.learning_rate", "tune.epochs", "tune.rank"))
    whole, _ = ran(Trials(rate_skill), start, asked)
    run = Trials(rate_skill)
    for limit in (1, 7, 16, 33, 48, None):
        run.limit = limit
        found, _ = ran(run, start, asked)
    assert found == whole
    assert set(run.counts.values()) == {1}


def test_the_verdict_orders_the_rungs() -> None:
    # Of its own training examples little is right: the rate first. Then all is right.
    names = list(LADDER)
    assert order(names, "underfit")[:2] == ["tune.learning_rate", "tune.epochs"]
    assert order(names, "overfit")[:2] == ["tune.epochs", "tune.lora_dropout"]
    assert order(names, "healthy") == names
    assert order(["decoding", "data.question"], "no_signal") == ["data.question", "decoding"]
    asked = question(only=("tune.weight_decay", "tune.learning_rate"))
    underfit, _ = ran(Trials(lambda r: 0.55, trained=0.3), base(), asked)
    assert [r.factor for r in underfit.rungs] == ["tune.learning_rate", "tune.weight_decay"]
    assert underfit.rungs[0].verdict == "underfit"
    healthy, _ = ran(Trials(lambda r: 0.95), base(), asked)
    assert [r.factor for r in healthy.rungs] == ["tune.weight_decay", "tune.learning_rate"]


def test_the_ladder_has_the_classic_values_and_what_the_model_allows() -> None:
    def values(factor: str, facts: Facts = FACTS) -> set[str]:
        return {v.label for v in variants(base("tune.learning_rate=3e-3"), factor, facts, {})}

    assert {"5e-06", "1e-05", "0.0001", "0.001"} <= values("tune.learning_rate")
    assert values("tune.rank") == {"4", "16", "32"}  # 8 is what it has
    assert values("tune.epochs") == {"1", "2", "5"}
    assert values("tune.batch_size") == {"4", "16"}
    assert values("tune.layers", Facts("classify", 6)) == {"top:4"}
    assert values("tune.target_modules", Facts("classify", 6, ("c_attn",))) == set()
    assert values("decoding") == {"temperature 0.7, top_k 50, top_p 0.9"}
    assert values("data.question", Facts("chat", 6)) == set()
    assert values("data.label_wording", Facts("classify", 6)) == set()  # no labels are known
    small = Facts("classify", 6, labels=("bad", "good"))  # in small letters, of one word
    assert values("data.label_wording", small) == {"letters"}
    named = Facts("classify", 6, labels=("Sci_Tech", "world"))
    assert values("data.label_wording", named) == {"lower", "words", "letters"}
    alike = Facts("classify", 6, labels=("a_b", "a-b"))
    assert values("data.label_wording", alike) == {"letters"}
    assert values("data.clean", Facts("classify", 6)) == set()  # nothing to clean
    dirty = Facts("classify", 6, cleanings=("conflicts", "duplicates"))
    assert values("data.clean", dirty) == {"conflicts", "duplicates", "conflicts, duplicates"}
    full = base("tune.method=top_layers")
    assert "tune.rank" not in factors_of(full, FACTS, {})


def test_values_of_the_ladder_that_a_recipe_cannot_have_are_left_out() -> None:
    eights = base("tune.micro_batch_size=8")
    found = [variant.label for variant in variants(eights, "tune.batch_size", FACTS, {})]
    assert found == [label for label in ("8", "16") if int(label) != eights.tune.batch_size]
    with pytest.raises(KilotuneError, match=r"tune\.batch_size"):
        variants(eights, "tune.batch_size", FACTS, {"tune.batch_size": [4]})


def test_layers_may_be_a_list_of_their_numbers() -> None:
    listed = base("tune.layers=[4, 5]")
    found = {v.label: v.simpler for v in variants(listed, "tune.layers", FACTS, {})}
    assert set(found) >= {"all", "top:4"}
    assert not any(found.values())
    (one,) = variants(base(), "tune.layers", FACTS, {"tune.layers": [[5]]})
    assert (one.label, one.simpler) == ("5", True)


def test_values_of_ones_own() -> None:
    own = {"data.system": ["Say good or bad."], "decoding": [{"temperature": 0.3}]}
    assert factors_of(base(), FACTS, own) == ["data.system", "decoding"]
    (system,) = variants(base(), "data.system", FACTS, own)
    assert differences(base(), system.recipe) == {
        "data.system": SettingChange(None, "Say good or bad.")
    }
    (decoding,) = variants(base(), "decoding", FACTS, own)
    assert (decoding.recipe.decoding.temperature, decoding.recipe.decoding.top_p) == (0.3, 1.0)
    with pytest.raises(KilotuneError, match="must be more than 0"):
        variants(base(), "tune.learning_rate", FACTS, {"tune.learning_rate": [-1]})
    with pytest.raises(KilotuneError, match=r"no values are known for 'data\.system'"):
        check_factors({}, ["data.system"])
    for name, value in (("model.name", "other"), ("seed", 3), ("data.test_fraction", 0.3)):
        with pytest.raises(KilotuneError, match=f"another '{name}' makes no other trial"):
            check_factors({name: (value,)}, ())
    with pytest.raises(KilotuneError, match=r"there is no setting 'tune\.learning_rat'"):
        check_factors({"tune.learning_rat": (1e-3,)}, ())
    check_factors(own, ())
    check_factors({}, ["tune.rank"])
    twice = variants(base(), "tune.rank", FACTS, {"tune.rank": [4, 4, 2]})
    assert [variant.label for variant in twice] == ["4", "2"]
    assert label_of(["q_proj", "v_proj"]) == "q_proj, v_proj"
    assert label_of([]) == "none"


def test_simpler_is_known_of_settings_that_have_an_order() -> None:
    def simpler(factor: str) -> set[str]:
        return {v.label for v in variants(base(), factor, FACTS, {}) if v.simpler}

    assert simpler("tune.rank") == {"4"}
    assert simpler("tune.epochs") == {"1", "2"}
    assert simpler("tune.layers") == {"top:4", "top:8", "top:16"}
    assert simpler("tune.lora_dropout") == set()
    assert simpler("tune.learning_rate") == set()
