"""A run that was stopped anywhere goes on to the same end, or says what stands against it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Unavailable
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import EnvironmentDocument
from kilotune.runs.record import RunFolder
from kilotune.workflows import run as pipeline
from kilotune.workflows.run import Run, open_run
from tests.support.earlier import without_identity
from tests.support.noted import Noted
from tests.support.records import written


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def chosen(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    from tests.support.tiny import labelled_csv

    data = labelled_csv(tmp_path_factory.mktemp("data") / "films.csv")
    settings = {"data": {"train": str(data)}, "model": {"name": str(tiny_model)}}
    always = [
        "model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=2",
        "judge.bootstrap_samples=50", "judge.forgetting=never",
    ]  # fmt: skip
    return load_recipe(settings=settings, overrides=always)


@pytest.fixture(scope="module")
def whole(chosen: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return kilotune.run(chosen, tmp_path_factory.mktemp("whole") / "run")


def killed_at(
    name: str, recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, after: int = 0
) -> Path:
    """The folder of a run that died at the call of `name` behind `after` others."""
    module, _, function = name.rpartition(".")
    calls = 0
    real = getattr(__import__(module, fromlist=[function]), function)

    def dies(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(name, dies)
        with pytest.raises(Killed):
            kilotune.run(recipe, out)
    return out


def assert_equal(folder: Path, whole: Run) -> None:
    for name in ("judgement.json", "verdict.json", "freeze_proof.json", "findings.json"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    weights = "adapter/adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (whole.folder / weights).read_bytes()
    first, second = RunFolder(folder), RunFolder(whole.folder)
    assert first.read_predictions() == second.read_predictions()
    tokens = [written(f, "environment.json")["tokens"] for f in (first, second)]
    assert tokens[0] == tokens[1]
    assert first.finished


@pytest.mark.parametrize("records", range(5))
def test_a_run_killed_among_its_first_records_is_begun_again(
    chosen: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: int
) -> None:
    name = "kilotune.runs.record.write_atomically"
    folder = killed_at(name, chosen, tmp_path / "run", monkeypatch, after=records)
    if records == 0:  # the lock alone: each of the two commands leads on
        with pytest.raises(KilotuneError, match="before anything was written") as caught:
            kilotune.resume(folder)
        assert f"--out {folder}" in caught.value.fix
        kilotune.run(chosen, folder)
    else:
        kilotune.resume(folder)
    assert_equal(folder, whole)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("kilotune.session.fine_tuning.tune", 0),
        ("kilotune.training.trainer.seal", 1),
        ("kilotune.session.baseline_systems.majority", 0),
        ("kilotune.workflows.stages.sign_test", 0),
    ],
    ids=["before tuning", "in a checkpoint", "in judging", "before the verdict"],
)
def test_what_a_run_took_is_the_same_wherever_it_was_killed(
    chosen: Recipe,
    whole: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    after: int,
) -> None:
    folder = killed_at(name, chosen, tmp_path / "run", monkeypatch, after)
    before = written(folder, "environment.json")["seconds"]
    kilotune.resume(folder)
    assert_equal(folder, whole)
    seconds = written(folder, "environment.json")["seconds"]
    assert set(seconds) == set(written(whole.folder, "environment.json")["seconds"])
    assert all(seconds[stage] >= took for stage, took in before.items())
    assert seconds["load"] > before["load"]  # it was done twice


def test_a_run_killed_before_its_report_is_judged_and_only_gets_it(
    chosen: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_at("kilotune.workflows.run.build_report", chosen, tmp_path / "run", monkeypatch)
    state = RunFolder(folder)
    assert state.judged
    assert not state.finished
    monkeypatch.setattr(pipeline, "prepare", lambda *given: pytest.fail("nothing is done again"))
    noted = Noted()
    run = kilotune.resume(folder, noted)
    assert noted.lines == ["The run is judged already: only its report is made"]
    assert (run.judgements, run.verdict) == (whole.judgements, whole.verdict)
    assert_equal(folder, whole)
    with pytest.raises(KilotuneError, match="the run is finished"):
        kilotune.resume(folder)


def test_a_report_does_not_wait_for_a_base_model_that_is_gone(
    chosen: Recipe, whole: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    (folder / "report.html").unlink()
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(chosen.model.name, str(tmp_path / "gone")))
    noted = Noted()
    kilotune.resume(folder, noted)
    assert RunFolder(folder).finished
    assert any(line.startswith("warning: no model card") for line in noted.lines)


def test_a_record_that_is_deleted_as_advised_is_made_again(whole: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    (folder / "environment.json").write_text("{")
    with pytest.raises(KilotuneError, match=r"environment\.json") as caught:
        RunFolder(folder).read(EnvironmentDocument)
    assert "delete it and verdict.json" in caught.value.fix
    for name in ("environment.json", "verdict.json"):
        (folder / name).unlink()
    kilotune.resume(folder)
    assert_equal(folder, whole)


def test_a_run_of_before_whose_figures_say_no_reason_is_opened(whole: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    record = folder / "judgement.json"
    found = json.loads(record.read_text())
    found["test"][-1]["figures"]["macro_f1"] = {"value": None, "low": None, "high": None}
    record.write_text(json.dumps(found))
    figure = open_run(folder).judgements[-1].figures["macro_f1"]
    assert isinstance(figure, Unavailable)
    assert figure.reason == "not a finite number"
    del found["test"][-1]["unreadable"]
    record.write_text(json.dumps(found))
    with pytest.raises(KilotuneError, match=r"judgement\.json is damaged .*unreadable"):
        open_run(folder)


def test_an_opened_run_is_what_the_run_returned(whole: Run) -> None:
    assert open_run(str(whole.folder)) == whole


def gone(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [gone, cut])
@pytest.mark.parametrize(
    "file",
    ["adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
     "trainer_state.json"],
)  # fmt: skip
def test_a_damaged_checkpoint_changes_nothing_and_is_said(
    chosen: Recipe,
    whole: Run,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    for name in ("judgement.json", "verdict.json", "report.html"):
        (folder / name).unlink()
    checkpoints = sorted((folder / "checkpoints").iterdir(), key=lambda p: int(p.name[11:]))
    damage(checkpoints[-1] / file)
    noted = Noted()
    kilotune.resume(folder, noted)
    (said,) = [line for line in noted.lines if line.startswith("skipping ")]
    assert said.startswith(f"skipping {checkpoints[-1].name}: {file} is ")
    assert_equal(folder, whole)


def test_a_run_goes_on_with_the_recipe_it_began_with_alone(
    chosen: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_at("kilotune.session.fine_tuning.tune", chosen, tmp_path / "run", monkeypatch)
    recipe = folder / "recipe.yaml"
    written = recipe.read_text()
    recipe.write_text(written.replace("learning_rate: 0.01", "learning_rate: 0.02"))
    with pytest.raises(KilotuneError, match=r"learning_rate was 0\.01, is 0\.02") as caught:
        kilotune.resume(folder)
    assert caught.value.where == str(recipe)
    recipe.write_text(written[:300])
    with pytest.raises(KilotuneError, match="not the recipe that the run was begun with"):
        kilotune.resume(folder)
    # Where the files lie is no part of what a run is, nor is who is told of it.
    moved = tmp_path / "moved.csv"
    chosen.data.train.rename(moved)
    try:
        recipe.write_text(written.replace(str(chosen.data.train), str(moved)))
        kilotune.resume(folder)
    finally:
        moved.rename(chosen.data.train)


@pytest.mark.parametrize("alone", [False, True])
def test_a_run_goes_on_where_it_was_moved_to(
    chosen: Recipe, whole: Run, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its project, from any folder; and alone, where it is told where the data lie now."""
    project = tmp_path / "project"
    shutil.copytree(chosen.data.train.parent, project)
    monkeypatch.chdir(project)
    recipe = chosen.with_settings({"data.train": Path("films.csv")})
    name = "kilotune.session.fine_tuning.tune"
    folder = killed_at(name, recipe, Path("runs/a"), monkeypatch).absolute()
    monkeypatch.chdir(tmp_path)
    moved = (folder if alone else project).rename(tmp_path / "moved")
    folder = moved if alone else moved / "runs" / "a"
    given: list[str] = []
    if alone:
        (project / "films.csv").rename(tmp_path / "other.csv")
        with pytest.raises(KilotuneError, match=r"no such file.*--set data\.train=FILE"):
            kilotune.resume(folder)
        with pytest.raises(KilotuneError, match="seed cannot be set anew"):
            kilotune.resume(folder, moved=["seed=1"])
        given = ["--set", "data.train=other.csv"]
    result = CliRunner().invoke(app, ["resume", str(folder), *given])
    assert result.exit_code == 0, result.output
    assert_equal(folder, whole)
    # What was moved is known from now on.
    assert RunFolder(folder).read_recipe().data.train.exists()


def test_without_what_it_is_known_by_no_run_goes_on(
    chosen: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_at("kilotune.session.fine_tuning.tune", chosen, tmp_path / "run", monkeypatch)
    (folder / "identity.json").unlink()
    with pytest.raises(KilotuneError, match=r"identity\.json is missing"):
        kilotune.resume(folder)
    (folder / "identity.json").write_text("{}")
    without_identity(folder)
    with pytest.raises(KilotuneError, match="started by an earlier version"):
        kilotune.resume(folder)


def test_a_torn_line_of_the_training_log_is_cut_off_when_the_run_goes_on(
    chosen: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "kilotune.training.trainer.seal"
    folder = killed_at(name, chosen, tmp_path / "run", monkeypatch, after=1)
    log = folder / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    kilotune.resume(folder)
    assert_equal(folder, whole)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line][-1] == 8
