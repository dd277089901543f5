import re
from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.recipe.load import dump_recipe, load_recipe, presets
from kilotune.recipe.problems import setting_names
from kilotune.recipe.schema import LoraSettings, Recipe, TopLayersSettings

# What Pydantic says and a user should not have to read.
LIBRARY = re.compile(r"[Ii]nput|\bvalid\b|permitted|dictionary|instance|None")
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


def test_labels_that_are_numbers_can_be_called_otherwise() -> None:
    given = ["data.label_wording={1: good, 0: bad, other: 3}"]
    recipe = load_recipe(settings=DATA, overrides=given)
    assert recipe.data.label_wording == {"1": "good", "0": "bad", "other": "3"}
    with pytest.raises(KilotuneError, match="must be as_is, lower, words or letters"):
        load_recipe(settings=DATA, overrides=["data.label_wording=upper"])


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


def test_a_preset_may_be_set_like_any_setting() -> None:
    recipe = load_recipe(settings=DATA, preset="auto", overrides=["preset=article"])
    assert (recipe.preset, recipe.tune.learning_rate) == ("article", 1e-5)


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
        ("tune.learning_rat=1", "no such setting; did you mean tune.learning_rate?"),
        ("tune.learning_rate=-1", "tune.learning_rate: must be more than 0, not -1"),
        ("tune.layers=bottom", "top:K"),
        ("tune.micro_batch_size=3", "micro_batch_size 3 does not divide batch_size 8"),
        ("learning_rate", "--set learning_rate"),
        ("seed=", "seed: must be a whole number, not empty"),
        ("tune=3", "tune: must be a group of settings, not 3"),
        ("data=", "data: must be a group of settings, not empty"),
        (
            "tune.method=lroa",
            "tune.method: must be lora, dora, top_layers, full or bitfit, not 'lroa'",
        ),
        ("data.tset=a.csv", "did you mean data.test?"),
        ("mdoel.name=a", "did you mean model?"),
        ("learning_rate=1", "did you mean tune.learning_rate?"),
        ("data.chat_template=plain", "did you mean model.chat_template?"),
        ("tune.stopping.patiense=2", "did you mean tune.stopping.patience?"),
        ("tune.zzz=2", "--set tune.zzz: no such setting. docs/recipe.md lists all settings"),
        ("tune.micro_batch_size=many", "must be a whole number or auto, not 'many'"),
        ("tune.layers=[1, -1]", "tune.layers[1]: must be 0 or more, not -1"),
        ("tune.report_to=wandb", "tune.report_to: must be a list, not 'wandb'"),
        ("model.precision=bflaot16", "did you mean bfloat16?"),
        ("model.template_arguments={a: []}", "must be true or false, a whole number or text"),
        ("data.columns={prompt: 3}", "data.columns.prompt: must be text, not 3"),
        ("decoding.top_p=2", "decoding.top_p: must be 1 or less, not 2"),
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


def test_a_file_and_set_are_named_each_for_its_own_settings(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: 3}\ntune: []\n")
    with pytest.raises(KilotuneError) as caught:
        load_recipe(path, overrides=["seed=-1"])
    assert str(caught.value).splitlines() == [
        f"{path}: 3 settings are wrong",
        "  --set seed: must be 0 or more, not -1",
        "  data.train: must be a path, not 3",
        "  tune: must be a group of settings, not []",
        "docs/recipe.md lists all settings",
    ]
    path.write_text("data: {train: a.csv}\n")
    with pytest.raises(KilotuneError) as caught:
        load_recipe(path, overrides=["tune.method=top_layers", "tune.rank=4"])
    assert str(caught.value) == (
        "--set tune.rank: a setting of tune.method lora, not of top_layers. "
        "docs/recipe.md lists all settings"
    )


def test_no_words_of_the_library_reach_the_user(tmp_path: Path) -> None:
    """Every setting given something that it cannot be."""
    for name in setting_names():
        for wrong in ("{x: {}}", "[[]]"):
            with pytest.raises(KilotuneError) as caught:
                load_recipe(settings=DATA, overrides=[f"{name}={wrong}"])
            said = str(caught.value)
            assert name in said, said
            assert not re.search(r"[Ii]nput|\bvalid\b|permitted|dictionary|instance|None", said), (
                said
            )


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
