from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.recipe.load import dump_recipe, load_recipe, presets
from kilotune.recipe.schema import LoraSettings, Recipe, TopLayersSettings

DATA = {"data": {"train": "x.csv"}}


def test_three_presets_ship() -> None:
    assert presets() == ["article", "article-top-layers", "auto"]


@pytest.mark.parametrize("name", presets())
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(preset=name, settings=DATA)
    saved = tmp_path / "recipe.yaml"
    saved.write_text(dump_recipe(recipe.model_copy(update={"preset": name})))
    again = load_recipe(saved)
    assert again.tune == recipe.tune
    assert again.decoding == recipe.decoding
    assert again.preset == name


def test_article_is_the_classic_advice_verbatim() -> None:
    recipe = load_recipe(preset="article", settings=DATA)
    tune = recipe.tune
    assert isinstance(tune, LoraSettings)
    assert (tune.learning_rate, tune.batch_size, tune.epochs) == (1e-5, 8, 3)
    assert (tune.rank, tune.lora_alpha, tune.lora_dropout) == (8, 16, 0)
    assert tune.target_modules == ("q_proj", "v_proj")
    assert (tune.weight_decay, tune.max_grad_norm) == (0.01, 1.0)
    assert tune.schedule == "constant_with_warmup"
    decoding = recipe.decoding
    assert (decoding.temperature, decoding.top_k, decoding.top_p) == (0.7, 50, 0.9)


def test_article_top_layers_trains_layers_without_lora() -> None:
    tune = load_recipe(preset="article-top-layers", settings=DATA).tune
    assert isinstance(tune, TopLayersSettings)
    assert (tune.learning_rate, tune.layers) == (1e-5, "top:4")


def test_set_goes_over_settings_goes_over_file_goes_over_preset(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: x.csv}\nseed: 1\ntune: {rank: 4, epochs: 1}\n")
    recipe = load_recipe(
        path, settings={"tune": {"epochs": 2}}, overrides=["tune.learning_rate=2e-4", "seed=3"]
    )
    assert isinstance(recipe.tune, LoraSettings)
    assert (recipe.tune.rank, recipe.tune.epochs) == (4, 2)
    assert (recipe.tune.learning_rate, recipe.seed) == (2e-4, 3)


def test_paths_in_a_file_are_relative_to_that_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: x.csv, test: t.csv}\n")
    data = load_recipe(path).data
    assert (data.train, data.test) == (tmp_path / "x.csv", tmp_path / "t.csv")


def test_another_method_drops_the_fields_that_only_the_presets_method_has() -> None:
    tune = load_recipe(settings=DATA, overrides=["tune.method=top_layers"]).tune
    assert isinstance(tune, TopLayersSettings)
    assert tune.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tune.learning_rat=1", "tune.learning_rat"),
        ("tune.learning_rate=-1", "tune.learning_rate: Input should be greater than 0"),
        ("tune.layers=bottom", "top:K"),
        ("tune.micro_batch_size=3", "micro_batch_size 3 does not divide 8"),
        ("learning_rate", "--set learning_rate"),
        ("seed=", "seed"),
    ],
)
def test_a_wrong_setting_is_named(override: str, words: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        load_recipe(settings=DATA, overrides=[override])
    assert words in str(caught.value)


@pytest.mark.parametrize("question", ["{text}", "Text: {text}", "What of [{text}"])
def test_prose_given_to_set_stays_prose(question: str) -> None:
    recipe = load_recipe(settings=DATA, overrides=[f"data.question={question}"])
    assert recipe.data.question == question


def test_a_mapping_given_to_set_is_a_mapping() -> None:
    recipe = load_recipe(settings=DATA, overrides=["tune.stopping={patience: 5}"])
    assert recipe.tune.stopping.patience == 5


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(KilotuneError) as caught:
        load_recipe(settings=DATA, overrides=["tune.rank=0", "decoding.top_p=2"])
    assert "tune.rank" in caught.value.what
    assert "decoding.top_p" in caught.value.what


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("seed: 1\ntune: {rank: [\n")
    with pytest.raises(KilotuneError) as caught:
        load_recipe(path)
    assert caught.value.where.startswith(f"{path}:")


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(KilotuneError, match="articel") as caught:
        load_recipe(preset="articel", settings=DATA)
    assert "article" in caught.value.fix


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe(settings=DATA)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]
    assert isinstance(recipe, Recipe)


def test_a_template_file_is_relative_to_the_recipe_and_names_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for written, meant in (("own.jinja", str(tmp_path / "own.jinja")), ("plain", "plain")):
        path.write_text(f"data: {{train: a.csv}}\nmodel: {{chat_template: {written}}}\n")
        assert load_recipe(path).model.chat_template == meant
