"""Which texts of a recipe are paths, and from which folder they are seen."""

from pathlib import Path

import pytest
import yaml

from kilotune.errors import KilotuneError
from kilotune.models.builtin import BUILTIN, ENCODERS
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import dump_recipe, load_recipe
from kilotune.recipe.locations import LOCATIONS, with_whole_paths
from kilotune.recipe.schema import BUILT_IN, BUILT_IN_ENCODERS, Location, Recipe
from kilotune.runs.record import RunFolder
from tests.support.tiny import labelled_csv


def recipe_file(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "r.yaml"
    path.write_text(f"data: {{train: x.csv}}\n{text}\n", encoding="utf-8")
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_path_is_a_location() -> None:
    assert set(LOCATIONS) == {
        "augment.embedding", "augment.masked", "augment.synonyms", "augment.translators",
        "augment.wordnet", "data.images", "data.test", "data.train", "data.validation",
        "judge.encoder", "judge.model", "model.chat_template", "model.name", "unlabeled.file",
    }  # fmt: skip
    # Of the others some may be names too: they are texts to pydantic.
    paths = [mark for mark in LOCATIONS.values() if mark == Location()]
    assert str(Recipe.model_json_schema()).count("'format': 'path'") == len(paths) == 7


def test_the_built_in_models_are_names() -> None:
    assert set(BUILT_IN) == set(BUILTIN)
    assert set(BUILT_IN_ENCODERS) == set(ENCODERS)


@pytest.mark.parametrize(
    "name", ["model.name", "judge.model", "augment.masked", "augment.embedding"]
)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("models/own", "there/models/own"),  # a folder beside the recipe
        ("./nowhere", "there/nowhere"),
        ("../up", "up"),
        ("weights.GGUF", "there/weights.GGUF"),
        ("config.json", "there/config.json"),
        ("org/model", None),
        ("smollm2", None),  # whatever folders there are
        (r"models\own", None),
        ("models.own:ask", None),
        ("..name", None),
    ],
)
def test_a_name_is_a_path_where_it_looks_like_one_or_is_a_folder_beside_the_recipe(
    name: str, text: str, found: str | None, project: Path
) -> None:
    there = project / "there"
    (there / "models" / "own").mkdir(parents=True)
    (there / "smollm2").mkdir()
    part, _, last = name.partition(".")
    recipe = load_recipe(recipe_file(there, f"{part}: {{{last}: '{text}'}}"), trust_code=True)
    expected = str(project / found) if found else text
    assert getattr(getattr(recipe, part), last) == expected
    whole = with_whole_paths(recipe)
    assert getattr(getattr(whole, part), last) == expected


def test_a_home_folder_is_spelt_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project / "jane"))
    text = "model: {name: ~/m, chat_template: ~/t.jinja}\naugment: {synonyms: ~/s.tsv}"
    recipe = load_recipe(recipe_file(project / "there", text))
    home = project / "jane"
    assert (recipe.model.name, recipe.model.chat_template) == (f"{home}/m", f"{home}/t.jinja")
    assert recipe.augment.synonyms == home / "s.tsv"
    assert load_recipe(overrides=["data.train=a", "model.name=~/m"]).model.name == f"{home}/m"


def test_what_is_set_is_seen_from_the_current_folder_and_the_rest_from_the_file(
    project: Path,
) -> None:
    file = recipe_file(project / "there", "model: {chat_template: t.jinja}\ndecoding: {top_k: 1}")
    (project / "here").mkdir()
    recipe = with_whole_paths(
        load_recipe(file, settings={"model": {"name": "here"}}, overrides=["data.test=t.csv"])
    )
    assert recipe.model.name == str(project / "here")
    assert recipe.data.test == project / "t.csv"
    assert recipe.data.train == project / "there" / "x.csv"
    assert recipe.model.chat_template == str(project / "there" / "t.jinja")


def test_translators_are_located_inside_their_names(project: Path) -> None:
    there = project / "there"
    for name in ("ab", "ba", "en-de"):
        (there / name).mkdir(parents=True)
    given = ["hf:ab,./ba", "hf:org/m@en-de", "apertium:en-de@./data", "argos:en-de", "model:ab"]
    recipe = load_recipe(recipe_file(there, f"augment: {{translators: {given}}}"))
    assert recipe.augment.translators == (
        f"hf:{there}/ab,{there}/ba", "hf:org/m@en-de", f"apertium:en-de@{there}/data",
        "argos:en-de", "model:ab",
    )  # fmt: skip


def test_paths_that_an_ablation_tries_are_seen_from_the_file(project: Path) -> None:
    factors = "{model.chat_template: [plain, t.jinja], augment: [{synonyms: s.tsv}]}"
    recipe = load_recipe(recipe_file(project / "there", f"ablation: {{factors: {factors}}}"))
    assert {name: list(values) for name, values in recipe.ablation.factors.items()} == {
        "model.chat_template": ["plain", str(project / "there" / "t.jinja")],
        "augment": [{"synonyms": str(project / "there" / "s.tsv")}],
    }


def test_a_folder_of_the_current_one_is_not_taken_for_the_model_of_a_recipe_elsewhere(
    project: Path,
) -> None:
    file = recipe_file(project / "there", "model: {name: org/model}")
    assert load_recipe(file).model.name == "org/model"
    (project / "org" / "model").mkdir(parents=True)
    with pytest.raises(KilotuneError, match=r"write \.\./org/model") as caught:
        load_recipe(file)
    assert caught.value.where == str(file)
    assert load_recipe(file, runs=()).model.name == "org/model"  # to be read alone
    for given in ("model.name=org/model", "model.name=./org/model"):
        recipe = load_recipe(file, overrides=[given])
        assert recipe.model.name == str(project / "org" / "model")


def test_two_points_behind_a_link_lead_where_the_system_says(project: Path) -> None:
    (project / "deep" / "er").mkdir(parents=True)
    (project / "link").symlink_to(project / "deep" / "er")
    file = recipe_file(project / "deep" / "er", "seed: 1")
    file.write_text("data: {train: ../x.csv}")
    assert load_recipe(project / "link" / "r.yaml").data.train == project / "deep" / "x.csv"


def saved(folder: Path, **settings: object) -> dict[str, object]:
    """The recipe as the run in `folder` keeps it."""
    recipe = with_whole_paths(load_recipe(settings=settings))
    folder.mkdir(parents=True)
    RunFolder(folder).write_recipe(recipe)
    assert RunFolder(folder).read_recipe() == recipe
    return dict(yaml.safe_load((folder / "recipe.yaml").read_text()))


def test_a_runs_paths_within_the_project_are_relative_and_others_are_whole(
    project: Path, tmp_path: Path
) -> None:
    (project / "models" / "own").mkdir(parents=True)
    data = {"train": "rows/x.csv", "test": str(tmp_path / "t.csv")}
    model = {"name": "models/own", "chat_template": "plain"}
    tree = saved(project / "runs" / "a", data=data, model=model, judge={"model": "org/judge"})
    assert tree["data"] | data == tree["data"] | {"test": data["test"], "train": "rows/x.csv"}
    assert tree["data"]["train"] == "../../rows/x.csv"  # type: ignore[index]
    assert tree["data"]["test"] == str(tmp_path / "t.csv")  # type: ignore[index]
    assert tree["model"]["name"] == "../../models/own"  # type: ignore[index]
    assert tree["model"]["chat_template"] == "plain"  # type: ignore[index]
    assert tree["judge"]["model"] == "org/judge"  # type: ignore[index]
    elsewhere = saved(tmp_path / "out", data=data)
    assert elsewhere["data"]["train"] == str(project / "rows" / "x.csv")  # type: ignore[index]


def test_a_run_behind_a_link_finds_its_data(project: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "disk", project / "deep" / "er"):
        target.mkdir(parents=True)
        (project / target.name).symlink_to(target)
        saved(project / target.name / "run", data={"train": "x.csv"})


def test_a_recipe_of_whole_paths_is_read_as_before(project: Path, tmp_path: Path) -> None:
    recipe = load_recipe(settings={"data": {"train": str(tmp_path / "x.csv")}})
    file = project / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    assert load_recipe(file).data.train == tmp_path / "x.csv"


def test_a_run_that_is_moved_with_its_data_finds_them_from_anywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "own").mkdir()
    recipe = load_recipe(
        settings={"data": {"train": labelled_csv(project / "x.csv", 40)}, "model": {"name": "own"}}
    )
    before = prepare(recipe, Silent())
    run = project / "runs" / "a"
    run.mkdir(parents=True)
    RunFolder(run).write_recipe(before.recipe)
    monkeypatch.chdir(tmp_path)
    moved = project.rename(tmp_path / "moved")
    for here in (tmp_path, moved / "runs"):
        monkeypatch.chdir(here)
        folder = RunFolder(Path("moved/runs/a" if here == tmp_path else "a"))
        after = prepare(folder.read_recipe(), Silent())
        assert after.fingerprint == before.fingerprint
        assert after.recipe.data.train == moved / "x.csv"
        assert after.recipe.model.name == str(moved / "own")


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ("data.train", "data.train"), ("data.test", "data.test"),
        ("data.validation", "data.validation"), ("unlabeled.file", "unlabeled.file"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_named_with_its_setting(
    given: str, setting: str, project: Path
) -> None:
    train = labelled_csv(project / "x.csv", 40)
    recipe = load_recipe(settings={"data": {"train": train}}, overrides=[f"{given}=gone.csv"])
    with pytest.raises(KilotuneError, match=f"no such file.*--set {setting}=FILE") as caught:
        prepare(recipe, Silent())
    assert caught.value.where == str(project / "gone.csv")


def test_what_was_moved_is_set_anew_and_nothing_else(project: Path) -> None:
    run = project / "run"
    saved(run, data={"train": "x.csv"})
    folder = RunFolder(run)
    assert with_whole_paths(folder.read_recipe(moved=["data.train=y.csv"])).data.train == (
        project / "y.csv"
    )
    with pytest.raises(KilotuneError, match=r"tune\.epochs cannot be set anew.*data\.train"):
        folder.read_recipe(moved=["data.train=y.csv", "tune.epochs=9"])
    folder.note_moves(["data.train=y.csv"])
    assert folder.read_recipe().data.train == project / "y.csv"
    assert yaml.safe_load((run / "recipe.yaml").read_text())["data"]["train"] == "../y.csv"


def test_a_recipe_made_in_python_is_seen_from_the_current_folder(project: Path) -> None:
    (project / "own").mkdir()
    tree = load_recipe(settings={"data": {"train": "x"}}).model_dump()
    tree["model"]["name"] = "own"
    whole = with_whole_paths(Recipe.model_validate(tree))
    assert (whole.model.name, whole.data.train) == (str(project / "own"), project / "x")
