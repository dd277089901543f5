"""What a report shows of a recipe: no folder of this machine, wherever a path may stand."""

from pathlib import Path

import pytest
import yaml

from kilotune.recipe.load import load_recipe
from kilotune.recipe.locations import LOCATIONS
from kilotune.recipe.sharing import shown_recipe

HERE = "/home/jane.marker/secret/x.jinja"


def shown(factors: dict[str, object]) -> dict[str, object]:
    settings = {"data": {"train": "a.csv"}, "ablation": {"factors": factors}}
    tree = yaml.safe_load(shown_recipe(load_recipe(settings=settings)))
    return dict(tree["ablation"]["factors"])


@pytest.mark.parametrize("name", sorted(LOCATIONS))
def test_paths_that_an_ablation_tries_are_names(name: str) -> None:
    part, _, last = name.rpartition(".")
    assert shown({name: [HERE, [HERE]]}) == {name: ["x.jinja", ["x.jinja"]]}
    if part:
        assert shown({part: [{last: HERE}]}) == {part: [{last: "x.jinja"}]}


def test_a_relative_file_is_its_name_and_other_texts_stay() -> None:
    factors = {"data.train": ["rows/a.csv"], "data.question": [HERE], "model.name": ["org/name"]}
    assert shown(factors) == {**factors, "data.train": ["a.csv"]}


def test_a_path_is_its_name() -> None:
    recipe = load_recipe(settings={"data": {"train": Path(HERE)}, "model": {"name": HERE}})
    assert "jane.marker" not in shown_recipe(recipe)


def test_the_models_of_a_translator_are_names() -> None:
    given = ["hf:/home/jane.marker/ab,org/ba", "apertium:en-de@/home/jane.marker/data"]
    augment = {"translators": given, "synonyms": HERE, "masked": HERE}
    recipe = load_recipe(settings={"data": {"train": "a.csv"}, "augment": augment})
    shown = yaml.safe_load(shown_recipe(recipe))["augment"]
    assert shown["translators"] == ["hf:ab,org/ba", "apertium:en-de@data"]
    assert (shown["synonyms"], shown["masked"]) == ("x.jinja", "x.jinja")
