import re
from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.recipe.functions import MODEL
from kilotune.recipe.load import dump_recipe, load_recipe, presets, recipe_of
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
    assert (tune.learning_rate, tune.refit) == ("auto", "auto")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tune.learning_rat=1", "no such setting; did you mean tune.learning_rate?"),
        ("tune.learning_rate=-1", "tune.learning_rate: must be more than 0 or auto, not -1"),
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
        ("model.template_arguments={messages: a}", "messages cannot be set: each conversation"),
        ("data.columns={prompt: 3}", "data.columns.prompt: must be text or a list, not 3"),
        ("decoding.top_p=2", "decoding.top_p: must be 1 or less, not 2"),
    ],
)
def test_a_wrong_setting_is_named(override: str, words: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        load_recipe(settings=DATA, overrides=[override])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "question",
    [
        "{text}",
        "Text: {text}",
        "What of [{text}",
        "{text}: say it in other words",
        "[INST]: be brief",
        "{a}: {a}",
        "{text}: {text}, [x]: y",
        "[[x]: y, {a}: b]",
    ],
)
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


def refusal(path: Path, text: str | bytes) -> str:
    """What is said of a recipe file with `text` in it."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(KilotuneError) as caught:
        load_recipe(path)
    said = str(caught.value)
    assert len(said) < 500, "one line that can be read"
    return said


def bomb(levels: int) -> str:
    """Each line stands for nine times the one before it."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {train: a.csv}\nseed: 1\nseed: 2\n", "r.yaml:3: 'seed' is given twice."),
        ("data: {train: a.csv}\ntune: {rank: 4,\n rank: 8}", "r.yaml:3: 'rank' is given twice."),
        (bomb(4), "no such setting"),  # small enough to be looked at
        (bomb(9), "r.yaml:5: more than 20,000 values."),
        ("a: &a {b: *a}", "r.yaml:1: an alias that refers to itself."),
        ("data: " + "[" * 3000, "r.yaml:1: nested more than 50 deep."),
        ("\n".join(" " * depth + "a:" for depth in range(1000)), "r.yaml:50: nested more than 50"),
        ("data: {train: a.csv, ? [a]: 1}", "r.yaml:1: a key must be plain text."),
        ("data: {train: a.csv}\n1: 2", "r.yaml: 1: no such setting."),
        ("data: {train: a.csv}\ntune: {2020-01-01: 2}", "tune.2020-01-01: no such setting."),
        ("data: {train: a.csv}\nnull: 2", "null: no such setting."),
        ("data: {train: a.csv}\nseed: 2024-13-45", "r.yaml:2: not a valid timestamp. Correct it"),
        ("data: {train: a.csv}\nseed: !!int x", "r.yaml:2: not a valid int. Correct it there"),
        ("data: {train: a.csv}\nseed: 0x" + "f" * 5000, "r.yaml:2: not a valid int."),
        ("data: {train: a.csv}\nseed: !!python/name:os.system", "r.yaml:2: could not determine a"),
        ("data: {train: a.csv}\nseed: [" + "x" * 50_000 + "]", "must be a whole number, not ['xxx"),
        ("data: {train: a.csv}\n" + "k" * 900 + ": 1", "no such setting"),
        ("data: {train: a.csv}\nmodel: {chat_template: [1]}", "chat_template: must be text"),
        ("preset: [1]\ndata: {train: a.csv}", "no preset [1]."),
        ("data: {train: a.csv}\ntune: {<<: 1}", "r.yaml:2: expected a mapping or list of"),
        ("data: {train: a.csv}\nseed: *b", "r.yaml:2: not valid YAML."),
        ("a: 1\n---\nb: 2", "not valid YAML."),
        ("- a\n- b", "a recipe is a YAML mapping."),
        ("", "a recipe is a YAML mapping."),
        (b"\x00\x01", "not valid YAML."),
        (b"\xff\xfe\x00", "not valid YAML."),
        ("# " + "x" * 1_000_000, "larger than any recipe, which has at most 1,000,000 bytes."),
    ],
)  # fmt: skip
def test_yaml_that_means_too_much_or_nothing_is_one_line(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    assert words in refusal(tmp_path / "r.yaml", text)


def test_a_text_that_aliases_repeat_is_counted_as_often(tmp_path: Path) -> None:
    text = "a: &a " + "x" * 10_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]"
    assert "more than 20,000 values" in refusal(tmp_path / "r.yaml", text)


def test_anchors_and_merges_of_a_usual_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: &data {train: a.csv, text: t}\ntune: {<<: {epochs: 2, batch_size: 4}, epochs: 1}\n"
    )
    recipe = load_recipe(path)
    assert (recipe.tune.epochs, recipe.tune.batch_size) == (1, 4)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="not a file"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ablation.factors={seed: [1], seed: [2]}", "--set ablation.factors: 'seed' is given"),
        ("tune.report_to=" + "[" * 3000, "--set tune.report_to: nested more than 50 deep"),
        (".".join("a" * 20) + "=1", "cannot read --set"),
        ("seed=2024-13-45", "--set seed: must be a whole number, not '2024-13-45'"),
    ],
)
def test_set_has_the_limits_of_a_file(override: str, words: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        load_recipe(settings=DATA, overrides=[override])
    assert words in str(caught.value)


def test_prose_with_a_word_twice_stays_prose() -> None:
    recipe = load_recipe(settings=DATA, overrides=["data.question=Q: {text}\nQ: again"])
    assert recipe.data.question == "Q: {text}\nQ: again"


def test_only_the_first_of_very_many_wrong_settings_are_said(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("\n".join(f"zz{number}: 1" for number in range(5000)))
    with pytest.raises(KilotuneError) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("5001 settings are wrong")  # data is missing too
    assert lines[-2:] == ["  and more", "docs/recipe.md lists all settings"]
    assert len(lines) == 33


CODE = {
    "model: {trust_remote_code: true}": "model.trust_remote_code",
    "model: {trust_remote_code: 1}": "model.trust_remote_code",
    "judge: {metric: 'own:score'}": "judge.metric=own:score",
    "judge: {model: 'own:judge'}": "judge.model=own:judge",
    "augment: {operations: [swap, 'own:op']}": "augment.operations=own:op",
    "augment: {operations: [{op: 'own:op'}]}": "augment.operations=own:op",
    "unlabeled: {operations: ['own:op']}": "unlabeled.operations=own:op",
    "ablation: {factors: {judge.metric: [null, 'own:score']}}": "judge.metric=own:score",
    "ablation: {factors: {augment.operations: [[], ['own:op']]}}": "augment.operations=own:op",
    "ablation: {factors: {augment: [{operations: ['own:op']}]}}": "augment.operations=own:op",
    "ablation: {factors: {model.trust_remote_code: [true]}}": "model.trust_remote_code",
}


@pytest.mark.parametrize("text", CODE)
def test_code_that_a_file_names_is_refused_unless_it_is_trusted(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    assert refusal(path, f"data: {{train: a.csv}}\n{text}\n") == (
        f"{path}: this file names Python code, which would be run: "
        f"{'ablation.factors: ' * ('factors' in text)}{CODE[text]}. Read that code; if you trust "
        "it, repeat with --trust-code (in Python: trust_code=True)"
    )
    assert load_recipe(path, trust_code=True) == load_recipe(path, runs=())


def test_names_of_models_and_operations_are_no_code(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "data: {train: a.csv}\nmodel: {trust_remote_code: false}\njudge: {model: org/judge}\n"
        "augment: {operations: [swap]}\nablation: {factors: {tune.rank: [4, 8]}}\n"
    )
    assert load_recipe(path).judge.model == "org/judge"


def test_code_that_the_caller_names_is_the_callers_own(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: a.csv}\njudge: {metric: 'theirs:score'}\n")
    given = "judge.metric=mine:score"
    assert load_recipe(path, overrides=[given]).judge.metric == "mine:score"
    assert load_recipe(path, settings={"judge": {"metric": "mine:score"}}).judge.metric
    assert load_recipe(path, overrides=["judge.metric=null"]).judge.metric is None
    with pytest.raises(KilotuneError, match="theirs:score"):
        load_recipe(path, overrides=["model.trust_remote_code=true"])


def test_only_code_that_would_be_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {train: a.csv}\njudge: {metric: 'own:score'}\n")
    assert load_recipe(path, runs=MODEL).judge.metric == "own:score"
    path.write_text("data: {train: a.csv}\nmodel: {trust_remote_code: true}\n")
    with pytest.raises(KilotuneError, match="trust_remote_code"):
        load_recipe(path, runs=MODEL)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=4294967296", "seed: must be 4,294,967,295 or less, not 4294967296."),
        ("tune.learning_rate=.inf", "must be 1,000,000 or less or auto, not inf."),
        ("tune.weight_decay=.nan", "tune.weight_decay: must be 1,000 or less, not nan."),
        ("tune.max_grad_norm=.inf", "max_grad_norm: must be 1,000,000,000 or less, not inf."),
        ("tune.stopping.minimum_gain=.nan", "must be 1,000,000 or less or auto, not nan."),
        ("tune.warmup_ratio=.nan", "tune.warmup_ratio: must be less than 1, not nan."),
        ("seed=.inf", "seed: must be a whole number, not inf."),
        ("tune.epochs=1.0e+9", "tune.epochs: must be 10,000 or less or auto, not 1000000000.0."),
        ("ablation.minutes=.inf", "ablation.minutes: must be 10,000,000 or less, not inf."),
        ("ablation.seeds=[0, 1, 5000000000]", "must be 4,294,967,295 or less, not 5000000000."),
        ("ablation.seeds=[]", "ablation.seeds: must be a list of 1 or more, not []."),
        ("tune.layers=top:999999999", "tune.layers: must be 'all', 'top:K' (as in top:6) or"),
        ("tune.rank=100000", "tune.rank: must be 16,384 or less, not 100000."),
    ],
)
def test_a_number_beyond_what_a_machine_can_do_is_refused(override: str, words: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        load_recipe(settings=DATA, overrides=[override])
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["decoding", "augment", "unlabeled"])
def test_a_temperature_is_none_or_large_enough_to_divide_by(name: str, tmp_path: Path) -> None:
    settings = {"data": {"train": "x.csv"}}
    with pytest.raises(KilotuneError, match=r"temperature: must be 0 or at least 0\.001"):
        load_recipe(settings=settings, overrides=[f"{name}.temperature=1e-300"])
    load_recipe(settings=settings, overrides=[f"{name}.temperature=0.001"])


def test_an_empty_path_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    for part in ("train", "validation", "test"):
        known = "" if part == "train" else "  train: x.csv\n"
        file.write_text(f"data:\n{known}  {part}: ''\n")
        with pytest.raises(KilotuneError, match=f"data.{part}: must name a file"):
            load_recipe(file)


def test_a_recipe_that_is_one_already_takes_settings_and_no_preset() -> None:
    recipe = load_recipe(settings=DATA)
    assert recipe_of(recipe) is recipe
    other = recipe_of(recipe, settings={"tune.method": "bitfit", "tune.epochs": 2})
    assert (other.tune.method, other.tune.epochs) == ("bitfit", 2)
    for given in ({"preset": "article"}, {"settings": {"preset": "article"}}):
        with pytest.raises(KilotuneError, match="come of its preset already"):
            recipe_of(recipe, **given)  # type: ignore[arg-type]
    article = recipe_of("films.csv", preset="article", settings={"tune.rank": 4})
    assert (article.preset, article.tune.rate) == ("article", 1e-5)
