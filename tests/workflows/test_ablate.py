"""A whole ablation on a tiny random model: on disk, stopped, gone on with, and through the CLI."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kilotune
from kilotune.ablation.ray_cluster import ClusterAddress
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.catalogue import find_runs
from kilotune.runs.cost import Cost
from kilotune.runs.record import RunFolder
from kilotune.runs.trials import Trial, Unit
from kilotune.session.workbench import Workbench
from kilotune.workflows import ablate as experiment
from tests.support.records import written
from tests.support.tiny import labelled_csv

SETTINGS = [
    "model.precision=float32", "tune.learning_rate=1e-5", "tune.epochs=2", "tune.layers=top:1",
    "judge.bootstrap_samples=100", "ablation.folds=2",
    "ablation.factors={tune.learning_rate: [3.0e-2]}",
]  # fmt: skip


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=[*SETTINGS, *overrides])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_csv(tmp_path_factory.mktemp("films") / "films.csv", 60)


def trial_files(folder: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}


@pytest.mark.slow
def test_an_ablation_stopped_ends_as_one_that_was_not(
    films: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(films, tiny_model)
    whole = experiment.ablate(chosen, tmp_path / "whole")
    parts = tmp_path / "parts"

    # By Ctrl-C in the middle of the eighth trial.
    count = 0
    run = Workbench.run

    def stopping(self: Workbench, *given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return run(self, *given)

    monkeypatch.setattr(Workbench, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        experiment.ablate(chosen, parts)
    monkeypatch.undo()
    kept = trial_files(parts)
    assert len(kept) == 7
    # What a power loss leaves of a file that was being written is no trial.
    (parts / "trials" / ".half.json.1.part").write_text("{")
    assert (parts / "best.yaml").exists()
    # Where the data lie makes no other trial; that they are others is known by a digest.
    elsewhere = Path(shutil.copy(films, tmp_path / "elsewhere.csv"))
    with pytest.raises(KilotuneError, match=r"ablation\.folds cannot be set anew"):
        experiment.resume(parts, moved=["ablation.folds=3"])
    resumed = experiment.resume(parts, moved=[f"data.train={elsewhere}"])
    assert RunFolder(parts).read_recipe().data.train == elsewhere
    assert {name: time for name, time in trial_files(parts).items() if name in kept} == kept
    assert resumed.trials == whole.trials
    documents = [json.loads((p / "ablation.json").read_text()) for p in (parts, whole.folder)]
    for document in documents:
        for rung in document["rungs"]:
            for tried in rung["tried"]:
                tried["cost"].pop("seconds")
    assert documents[0] == documents[1]
    assert (resumed.final / "best.yaml").exists() is False
    judged = [written(e.final, "judgement.json")["test"] for e in (whole, resumed)]
    assert judged[0] == judged[1]

    # The final recipe repeats to the same figures, and was tuned on all that is not the test.
    again = kilotune.run(load_recipe(whole.folder / "best.yaml"), tmp_path / "again")
    assert written(again.folder, "judgement.json")["test"] == judged[0]
    split = written(whole.final, "data.json")["split"]
    assert (len(split["train"]), len(split["validation"]), len(split["test"])) == (48, 0, 12)
    held = written(whole.folder, "folds.json")["folds"]
    assert sorted(id for fold in held for id in fold) == sorted(split["train"])

    # It is listed as one run, and asked again it does nothing anew.
    assert [entry.folder for entry in find_runs([whole.folder])] == [whole.final]
    once_more = CliRunner().invoke(app, ["ablate", str(whole.folder)])
    assert once_more.exit_code == 0, once_more.output
    assert "Held-out test, opened once, 12 examples: accuracy" in once_more.stdout
    assert f"{whole.trials} trials" in once_more.stdout
    document = json.loads(CliRunner().invoke(app, ["ablate", str(parts), "--json"]).stdout)
    assert document["test"] == judged[0]
    (rate,) = document["rungs"]
    assert (rate["factor"], rate["before"]) == ("tune.learning_rate", "1e-05")
    (tried,) = rate["tried"]
    changed = {"tune.learning_rate": {"before": 1e-05, "after": 0.03}}
    assert (tried["value"], tried["changes"]) == ("0.03", changed)
    assert document["changes"] == (changed if rate["adopted"] else {})
    films.write_text(films.read_text() + "one more,good\n")
    with pytest.raises(KilotuneError, match="the data have changed"):
        experiment.resume(whole.folder)


@pytest.mark.slow
def test_a_budget_that_judges_nothing_opens_no_test_and_can_be_raised(
    films: Path, tiny_model: Path, tmp_path: Path
) -> None:
    chosen, small = recipe(films, tiny_model, "ablation.trials=1"), tmp_path / "small"
    with pytest.raises(KilotuneError, match=r"nothing was tried .*: the budget of 1 trials"):
        experiment.ablate(chosen, small)
    assert len(trial_files(small)) == 1
    assert not (small / "final").exists()
    folds = (small / "folds.json").read_bytes()
    other = {**json.loads(folds), "folds": json.loads(folds)["folds"][::-1]}
    (small / "folds.json").write_text(json.dumps(other))
    with pytest.raises(KilotuneError, match="into other folds"):
        experiment.resume(small)
    (small / "folds.json").write_bytes(folds)
    raised = experiment.resume(small, trials=12)
    assert raised.trials <= 12
    assert RunFolder(raised.final).finished
    # Another budget is no other recipe: what is finished is shown again.
    for budget in ({}, {"trials": 12}, {"minutes": 60}):
        assert experiment.resume(small, **budget).final == raised.final


def test_what_trials_show_is_adopted_shown_and_tuned_in_the_end(
    films: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def played(self: Workbench, recipe: Recipe, unit: Unit, sample: int) -> Trial:
        held = [example.id for example in self.folds[unit.fold].validation]
        right = {id: float(recipe.tune.rank == 4 or i % 2) for i, id in enumerate(held)}
        cost = Cost(2.0, 100, 10)
        return Trial(unit, right, {}, {"known": 1.0}, (1.0, 0.5), (0.5,), cost, 0.1)

    monkeypatch.setattr(Workbench, "run", played)
    out = tmp_path / "out"
    settings = ["ablation.folds=2", "tune.epochs=1", "judge.bootstrap_samples=100",
        "judge.forgetting=never", "model.precision=float32"]  # fmt: skip
    arguments = ["ablate", films, "--model", tiny_model, "--factor", "tune.rank", "--factor",
        "tune.lora_alpha", "--trials", 60, "--out", out]  # fmt: skip
    arguments += [each for name in settings for each in ("--set", name)]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "factor tried trials gain decision reason cost" in lines
    (rank,) = [line for line in lines if line.startswith("tune.rank, 8 4 6 ")]
    assert " adopted surely better: +50.0 points [" in rank
    assert rank.endswith(" 12 s")
    rungs = {line.partition(",")[0] for line in lines if line.startswith("tune.") and "," in line}
    assert rungs == {"tune.rank", "tune.lora_alpha"}
    assert "tune.rank: 8 → 4" in lines
    assert "Ended: every factor was tried" in lines
    (spent,) = [line for line in lines if "neither steps nor answers" in line]
    assert spent.endswith("of which 5.0% neither steps nor answers")
    best = load_recipe(out / "best.yaml")
    assert best.tune.rank == RunFolder(out / "final").read_recipe().tune.rank == 4
    assert RunFolder(out / "final").finished
    assert best.ablation.trials == 60


def test_free_answers_are_measured_against_the_base_models_own(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "asked.csv"
    rows = [f"What is {i} and {i}?,It is {2 * i}" for i in range(24)]
    data.write_text("prompt,completion\n" + "\n".join(rows) + "\n")
    chosen, out = recipe(data, tiny_model, "decoding.max_new_tokens=4"), tmp_path / "out"
    found = experiment.ablate(chosen, out)
    base = written(out, "base.json")["scores"]
    held = {id for fold in written(out, "folds.json")["folds"] for id in fold}
    assert base.keys() == held
    assert all(0 <= score <= 1 for score in base.values())
    assert found.ablation.verdict is not None
    assert RunFolder(found.final).finished
    # Once asked it is not asked again.
    monkeypatch.setattr(Workbench, "base_scores", None)
    assert experiment.resume(out).ablation == found.ablation


def test_what_cannot_be_ablated_is_said_before_anything_is_written(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KilotuneError, match="cannot be cut into 33 folds"):
        experiment.ablate(recipe(labelled, tiny_model, "ablation.folds=33"), tmp_path / "new")
    with pytest.raises(KilotuneError, match=r"2 different seed\(s\) of 3"):
        experiment.ablate(recipe(labelled, tiny_model, "ablation.seeds=[0,1,1]"), tmp_path / "new")
    for given, why in (
        ("ablation.only=[tune.rate]", "no values are known for 'tune.rate'"),
        ("ablation.factors={seed: [1]}", "another 'seed' makes no other trial"),
    ):
        with pytest.raises(KilotuneError, match=why):
            experiment.ablate(recipe(labelled, tiny_model, given), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with monkeypatch.context() as several:
        several.setattr("kilotune.distributed.count", lambda: 2)
        with pytest.raises(KilotuneError, match="one process each"):
            experiment.ablate(recipe(labelled, tiny_model), tmp_path / "new")
        with pytest.raises(KilotuneError, match="one process each"):
            experiment.resume(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for none in (["--trials", "0"], ["--minutes", "0"]):
        assert CliRunner().invoke(app, ["ablate", str(labelled), *none]).exit_code == 2
    refused = CliRunner().invoke(app, ["ablate", "none.yaml"])
    assert (refused.exit_code, "no such recipe" in refused.stderr) == (2, True)


def test_a_cluster_that_cannot_be_joined_is_said_before_anything_is_written(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    chosen, new = recipe(labelled, tiny_model), tmp_path / "new"
    with pytest.raises(KilotuneError, match="ray is not installed") as missing:
        experiment.ablate(chosen, new, place=ClusterAddress("local"))
    assert missing.value.fix.startswith("pip install 'kilotune[ray]'")
    assert not new.exists()
    refused = CliRunner().invoke(app, ["ablate", str(labelled), "--ray-cpus", "1"])
    assert (refused.exit_code, "--ray ADDRESS" in refused.stderr) == (2, True)
