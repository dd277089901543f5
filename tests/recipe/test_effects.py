"""What each setting of a recipe affects, and what is decided by that."""

from collections.abc import Iterable

import pytest

from kilotune.recipe.difference import BINDING, binding_settings, effects_of
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Effect, Recipe, Settings, settings_of
from kilotune.runs.trials import DECIDING, heeded
from kilotune.session.workbench import CHECKED

ALL = {setting.name for setting in settings_of() if setting.affects}


def under(*names: str) -> set[str]:
    """The settings of these names, and those in these parts."""
    found = {n: {x for x in ALL if x == n or x.startswith(f"{n}.")} for n in names}
    assert all(found.values()), found  # a name that is gone
    return set().union(*found.values())


def affecting(effects: Iterable[Effect]) -> set[str]:
    return {name for name in ALL if effects_of(name) & set(effects)}


def test_every_part_has_a_class_of_settings() -> None:
    assert len(ALL) > 100
    assert all(len(effects_of(name)) == 1 for name in ALL)
    parts = {setting.name for setting in settings_of()} - ALL
    assert parts == {
        "model", "data", "augment", "augment.filters", "unlabeled", "tune", "tune.stopping",
        "decoding", "judge", "ablation",
    }  # fmt: skip
    with pytest.raises(AttributeError):
        list(settings_of(type("Unclassed", (Settings,), {"__annotations__": {"new": int}})))


def test_what_a_run_may_change_and_still_be_the_same() -> None:
    assert ALL - affecting(BINDING) == under(
        "preset", "model.name", "model.chat_template", "data.train", "data.validation",
        "data.test", "augment.wordnet", "augment.synonyms", "augment.masked",
        "augment.embedding", "augment.translators", "unlabeled.file", "judge", "ablation",
        "tune.report_to", "tune.cache", "tune.cache_limit_gb", "tune.streaming",
        "tune.micro_batch_size",
    )  # fmt: skip


def test_unlabelled_texts_may_lie_elsewhere_and_not_come_or_go() -> None:
    plain, one, moved = (
        binding_settings(load_recipe(settings={"data": {"train": "a.csv"}, "unlabeled": unlabeled}))
        for unlabeled in ({}, {"file": "one.csv"}, {"file": "moved/one.csv"})
    )
    assert plain != one == moved


def test_what_decides_the_answers_of_a_trial() -> None:
    # Of files and the model themselves an experiment knows digests, wherever they lie.
    places = under("data.train", "data.validation", "data.test", "model.name")
    assert ALL - affecting(DECIDING) == places | under(
        "preset", "judge", "tune.report_to", "tune.cache", "tune.cache_limit_gb",
        "tune.streaming", "ablation", "unlabeled",
    )  # fmt: skip


def test_what_may_be_a_factor() -> None:
    tried = {name for name in ALL if heeded(name)}
    assert tried == under(
        "tune", "augment", "decoding", "model", "data.question", "data.system",
        "data.label_wording", "data.clean", "data.max_length", "data.train_on",
    ) - under(
        "model.name", "decoding.search", "tune.stopping", "tune.refit", "tune.report_to",
        "tune.cache", "tune.cache_limit_gb", "tune.streaming",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("decoding", True),
        ("augment.filters", True),
        ("model.template_arguments.enable_thinking", True),
        ("tune.stopping", False),
        ("tune.cache_limit_gb", False),
        ("data", False),
        ("model", False),
        ("tune", False),
        ("data.columns.prompt", False),
        ("tune.no_such", False),
    ],
)
def test_parts_and_what_is_in_a_setting_are_factors_as_it_is(name: str, is_one: bool) -> None:
    assert heeded(name) is is_one


def test_what_the_checks_of_a_way_to_train_depend_on() -> None:
    steps = under(
        "tune.learning_rate", "tune.epochs", "tune.batch_size", "tune.schedule",
        "tune.warmup_ratio", "tune.weight_decay", "tune.max_grad_norm", "tune.stopping",
        "tune.refit", "tune.report_to",
    )  # fmt: skip
    assert affecting(CHECKED) == under("tune") - steps


def test_what_decides_the_guesses_of_self_training() -> None:
    choice = under(*(f"unlabeled.{name}" for name in (
        "file", "target_precision", "most", "labels", "weight", "folds", "seeds", "train_on",
    )))  # fmt: skip
    assert affecting({"guesses"}) == under("unlabeled") - choice


def test_a_recipe_is_changed_by_full_names_and_validated() -> None:
    recipe = Recipe.model_validate({"data": {"train": "a"}, "tune": {"method": "full"} | RATE})
    changed = recipe.with_settings({"tune.epochs": 2, "seed": 4, "tune.stopping.patience": 7})
    assert (changed.tune.epochs, changed.seed, changed.tune.stopping.patience) == (2, 4, 7)
    assert changed.with_settings({"tune.epochs": 3, "seed": 0, "tune.stopping.patience": 1}) == (
        recipe
    )
    for name, value in {"tune.epochs": 0, "tune.rank": 4, "sede": 1}.items():
        with pytest.raises(ValueError, match="validation error"):
            recipe.with_settings({name: value})
    with pytest.raises(KeyError):
        recipe.with_settings({"tnue.epochs": 1})


RATE = {"learning_rate": 0.1}
