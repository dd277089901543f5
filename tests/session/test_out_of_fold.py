"""Answers out of fold: whom they are of, what they judge, and when they are left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kilotune
from kilotune.data.folds import make_folds
from kilotune.evaluation.evidence import Figure
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.outcomes import JudgementDocument, VerdictDocument
from kilotune.runs.record import HELD_OUT, OUT_OF_FOLD, VALIDATION, RunFolder
from kilotune.session import out_of_fold
from kilotune.session.workbench import Workbench
from kilotune.workflows.run import Run
from tests.support.tiny import labelled_csv


def recipe(folder: Path, model: Path, *more: str) -> Recipe:
    data = labelled_csv(folder / "films.csv", 60)
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    always = [
        "model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=2",
        "judge.bootstrap_samples=200", "judge.forgetting=never", "judge.baselines=[]",
    ]  # fmt: skip
    return load_recipe(settings=settings, overrides=[*always, *more])


@pytest.fixture
def enough(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_fold, "ENOUGH", getattr(request, "param", 100))


@pytest.fixture(scope="module")
def judged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out_of_fold, "ENOUGH", 100)
        yield kilotune.run(recipe(folder, tiny_model), folder / "run")


def split_of(run: Run) -> Any:
    return RunFolder(run.folder).read(DataDocument).split


def test_every_labelled_example_is_answered_by_a_model_that_has_not_seen_it(judged: Run) -> None:
    split = split_of(judged)
    rows = RunFolder(judged.folder).read_predictions(HELD_OUT)
    assert sorted(row["id"] for row in rows) == sorted([*split.train, *split.validation])
    assert not {row["id"] for row in rows} & set(split.test)
    validation = {r["id"]: r for r in RunFolder(judged.folder).read_predictions(VALIDATION)}
    for row in rows[: len(validation)]:
        assert row["tuned_prediction"] == validation[row["id"]]["tuned_prediction"]
        assert row["base_prediction"] == validation[row["id"]]["base_prediction"]


def test_the_verdict_is_of_all_answers_together(judged: Run) -> None:
    folder = RunFolder(judged.folder)
    held = {one.name: one for one in folder.read(JudgementDocument).out_of_fold}
    assert set(held) == {"majority", "base", "tuned"}
    rows = folder.read_predictions(HELD_OUT)
    right = sum(row["tuned_right"] for row in rows) / len(rows)
    accuracy = held["tuned"].figures["accuracy"]
    assert isinstance(accuracy, Figure)
    assert accuracy.value == pytest.approx(right)
    verdict = folder.read(VerdictDocument).verdict
    assert verdict.figures["validation_accuracy"] == pytest.approx(right)
    assert verdict.figures["held_out"] == len(rows) == 48
    folds = len(list((judged.folder / OUT_OF_FOLD).glob("*.json")))
    assert verdict.figures["folds"] == 1 + folds
    assert "48" in verdict.summary
    assert f"{1 + folds} folds" in verdict.summary or "out of fold" in verdict.summary


def test_the_saved_model_is_the_one_tuned_before_the_folds(
    judged: Run, tiny_model: Path, tmp_path: Path
) -> None:
    plain = recipe(tmp_path, tiny_model, "judge.out_of_fold=never")
    alone = kilotune.run(plain, tmp_path / "run")
    assert not (alone.folder / HELD_OUT).exists()
    name = "adapter_model.safetensors"
    assert (alone.weights / name).read_bytes() == (judged.weights / name).read_bytes()
    assert [j.figures for j in alone.judgements] == [j.figures for j in judged.judgements]


@pytest.mark.parametrize(
    ("enough", "folds"), [(10, 0), (11, 1), (19, 1), (25, 2), (100, 4)], indirect=["enough"]
)
@pytest.mark.usefixtures("enough")
def test_no_more_folds_than_are_needed(folds: int, tiny_model: Path, tmp_path: Path) -> None:
    """Of 60 rows 12 are tested, 10 validated and 38 trained on, which are four folds."""
    session = session_of(recipe(tmp_path, tiny_model))
    found = out_of_fold.more_folds(session.prepared, session.progress)
    parts = session.prepared.parts
    assert len(found) == folds
    for fold in found:
        held = {example.id for example in fold.validation}
        assert not held & {example.id for example in fold.train}
        assert {example.id for example in parts.validation} < {e.id for e in fold.train}
        assert len(fold.train) + len(held) == len(parts.train) + len(parts.validation)


def session_of(chosen: Recipe) -> Any:
    from kilotune.models.source import locate
    from kilotune.preparation.prepare import prepare
    from kilotune.session.loading import open_session

    return open_session(prepare(chosen, Silent()), locate(chosen.model), Silent())


@pytest.mark.usefixtures("enough")
def test_a_validation_file_judges_alone(tiny_model: Path, tmp_path: Path) -> None:
    own = labelled_csv(tmp_path / "own.csv", 6)
    own.write_text(own.read_text().replace("film", "picture"))
    session = session_of(recipe(tmp_path, tiny_model, f"data.validation={own}"))
    assert len(session.prepared.parts.validation) == 6
    assert out_of_fold.more_folds(session.prepared, session.progress) == ()


@pytest.mark.usefixtures("enough")
def test_examples_that_cannot_be_cut_are_judged_by_validation(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Noted(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    from dataclasses import replace

    session = replace(session_of(recipe(tmp_path, tiny_model)), progress=Noted())

    def uncut(examples: Any, count: int, seed: int) -> Any:
        return make_folds(examples[:1], count, seed)

    monkeypatch.setattr(out_of_fold, "make_folds", uncut)
    assert out_of_fold.more_folds(session.prepared, session.progress) == ()
    assert said[0].startswith("judged by validation alone: 1 examples of 1 groups")


@pytest.mark.usefixtures("enough")
def test_a_stopped_run_goes_on_with_the_fold_that_is_missing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, tune = [], Workbench.run

    def stopping(self: Workbench, *given: Any, **named: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(given[1])
        return tune(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Workbench, "run", stopping)
        with pytest.raises(KeyboardInterrupt):
            kilotune.run(recipe(tmp_path, tiny_model), tmp_path / "run")
    kept = {path: path.read_bytes() for path in (tmp_path / "run" / OUT_OF_FOLD).glob("*.json")}
    assert len(kept) == 2
    run = kilotune.resume(tmp_path / "run")
    assert all(path.read_bytes() == content for path, content in kept.items())
    whole = kilotune.run(recipe(tmp_path, tiny_model), tmp_path / "whole")
    told = RunFolder(run.folder).read_predictions(HELD_OUT)
    assert told == RunFolder(whole.folder).read_predictions(HELD_OUT)
    assert run.verdict == whole.verdict
