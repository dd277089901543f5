from pathlib import Path

import pytest
import yaml

from kilotune.errors import KilotuneError
from kilotune.recipe import migration
from kilotune.recipe.difference import flat_settings
from kilotune.recipe.load import dump_recipe, load_recipe

PLAIN = "data: {train: films.csv}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_says_its_version_first_and_has_it_as_no_setting(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, PLAIN))
    text = dump_recipe(recipe)
    assert text.startswith(f"schema_version: {migration.RECIPE_VERSION}\n")
    assert load_recipe(written(tmp_path, text)) == recipe
    assert "schema_version" not in flat_settings(recipe)


@pytest.mark.parametrize("version", ["2", "'1'", "true", "1.0", "null"])
def test_a_recipe_of_a_newer_version_or_of_none_is_refused_by_name(
    tmp_path: Path, version: str
) -> None:
    path = written(tmp_path, f"schema_version: {version}\n{PLAIN}others: {{x: 1}}\n")
    said = "of schema version 2, .* up to 1" if version == "2" else "must be a whole number"
    with pytest.raises(KilotuneError, match=said) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_settings_that_were_renamed_are_read_by_their_names_of_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = {2: {"tune.rate": "tune.speed", "random": "seed"}, 3: {"tune.speed": "tune.epochs"}}
    monkeypatch.setattr(migration, "RENAMED", renamed)
    monkeypatch.setattr(migration, "RECIPE_VERSION", 3)
    for head in ("", "schema_version: 1\n"):
        path = written(tmp_path, f"{head}{PLAIN}random: 7\ntune: {{rate: 2}}\n")
        recipe = load_recipe(path)
        assert (recipe.seed, recipe.tune.epochs) == (7, 2)
    # What was not called so any more is wrong in a recipe of today, as any unknown name is.
    with pytest.raises(KilotuneError, match=r"tune\.rate"):
        load_recipe(written(tmp_path, f"schema_version: 3\n{PLAIN}tune: {{rate: 2}}\n"))
    with pytest.raises(KilotuneError, match="random is called seed now, which is given too"):
        load_recipe(written(tmp_path, f"{PLAIN}random: 7\nseed: 8\n"))


def test_no_renamed_setting_is_a_setting_of_today(tmp_path: Path) -> None:
    today = set(flat_settings(load_recipe(written(tmp_path, PLAIN))))
    for since, names in migration.RENAMED.items():
        assert since <= migration.RECIPE_VERSION
        assert not set(names) & today
    assert yaml.safe_load(dump_recipe(load_recipe(written(tmp_path, PLAIN))))["schema_version"] == 1
