"""Whatever stands in a recipe: it is read, or refused in words."""

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kilotune.errors import KilotuneError
from kilotune.recipe.load import dump_recipe, load_recipe
from kilotune.recipe.problems import setting_names
from kilotune.recipe.schema import Recipe

NAMES = sorted(setting_names())
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 10**30, 1e-300, 1e30, 1e308]),
    st.floats(),
)
WORDS = st.one_of(st.text(max_size=20), st.sampled_from(["auto", "all", "top:3", "top:999999999"]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.dates())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(WORDS, st.integers(), st.none()), inner, max_size=4),
    ),
    max_leaves=8,
)


def as_tree(chosen: dict[str, Any]) -> dict[str, Any]:
    """Full names and values as the nested mapping of a file."""
    tree: dict[str, Any] = {"data": {"train": "a.csv"}}
    for name, value in chosen.items():
        *parts, last = name.split(".")
        at: Any = tree
        for part in parts:
            at = at.setdefault(part, {}) if isinstance(at, dict) else {}
        if isinstance(at, dict):
            at[last] = value
    return tree


def outcome(*arguments: Any, **more: Any) -> Recipe | str:
    """The recipe, or what is said of it."""
    try:
        return load_recipe(*arguments, **more)
    except KilotuneError as error:
        return str(error)


QUIET = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@QUIET
@given(chosen=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_any_values_make_a_recipe_or_one_error(
    chosen: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("recipes") / "r.yaml"
    path.write_text(yaml.safe_dump(as_tree(chosen), allow_unicode=True), encoding="utf-8")
    made = outcome(path, runs=())
    if isinstance(made, str):
        assert 0 < len(made) < 2000
    else:
        path.write_text(dump_recipe(made), encoding="utf-8")
        assert load_recipe(path, runs=()) == made


@QUIET
@given(name=st.sampled_from(NAMES), text=st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_given_to_set_is_a_value_or_one_error(name: str, text: str) -> None:
    made = outcome(settings={"data": {"train": "a.csv"}}, overrides=[f"{name}={text}"])
    assert isinstance(made, Recipe) or 0 < len(made) < 2000
