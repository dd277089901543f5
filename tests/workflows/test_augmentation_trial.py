"""A trial of augmentation on a tiny random model."""

import json
from pathlib import Path

import pytest

from kilotune.data.files.claims import held
from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.cost import Cost
from kilotune.runs.trials import Trial, Unit
from kilotune.workflows.augmentation_trial import LONGER, WITHOUT, decided, run_trial
from tests.support.made import sentences
from tests.support.tiny import write_tiny_model


def recipe(folder: Path, model: Path, *operations: str) -> Recipe:
    rows = [f"{line},{('good', 'bad')[i % 2]}" for i, line in enumerate(sentences(24))]
    (folder / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return load_recipe(
        settings={
            "data": {"train": str(folder / "films.csv")},
            "model": {"name": str(model), "precision": "float32"},
            "augment": {"operations": list(operations)},
            "tune": {"epochs": 1},
        }
    )


def test_a_trial_tunes_with_and_without_and_goes_on_where_it_stopped(
    tmp_path: Path, tiny_model: Path
) -> None:
    chosen, out = recipe(tmp_path, tiny_model, "swap"), tmp_path / "trial"
    first = run_trial(chosen, out, Silent(), folds=2, seeds=1)
    assert list(first.steps) == [WITHOUT, "swap", LONGER]
    assert first.steps[LONGER] == first.steps["swap"] > first.steps[WITHOUT]
    files = {path: path.read_bytes() for path in (out / "trials").iterdir()}
    assert len(files) == 6
    judged = {id for raw in files.values() for id in json.loads(raw)["scores"]}
    test = {example.id for example in prepare(chosen, Silent()).parts.test}
    assert len(judged) == 24 - len(test)
    assert not judged & test
    assert first.decisions["swap"].decision == "unavailable"
    assert run_trial(chosen, out, Silent(), folds=2, seeds=1) == first
    assert {path: path.read_bytes() for path in (out / "trials").iterdir()} == files
    assert json.loads((out / "trial.json").read_text())["steps"] == first.steps
    # Another model's trials are its own.
    other = write_tiny_model(tmp_path / "other", seed=1)
    run_trial(recipe(tmp_path, other, "swap"), out, Silent(), folds=2, seeds=1)
    assert len(list((out / "trials").iterdir())) == 12


def test_what_cannot_be_tried_is_said(tmp_path: Path) -> None:
    for operations in ((), ("swap", "swap")):
        chosen = recipe(tmp_path, Path("smollm2"), *operations)
        with pytest.raises(KilotuneError, match="no operation is named, or one twice"):
            run_trial(chosen, tmp_path / "new", Silent())
    with pytest.raises(KilotuneError, match="is no trial"):
        run_trial(recipe(tmp_path, Path("smollm2"), "swap"), tmp_path, Silent())


def tried(unit: Unit, right: int) -> Trial:
    scores = {f"data:{i}": float(i < right) for i in range(100)}
    return Trial(unit, scores, {}, {}, (0.5,) * right, (), Cost(1.0, 1, 1))


def test_one_process_at_a_time_tries_and_what_a_killed_one_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, out = recipe(tmp_path, Path("smollm2"), "swap"), tmp_path / "trial"
    (out / "trials").mkdir(parents=True)
    with (
        held(out / "trial.lock", out),
        pytest.raises(
            KilotuneError, match="trial: locked: another kilotune process is writing to it"
        ),
    ):
        run_trial(chosen, out, Silent(), folds=2, seeds=1)
    for half in (out / ".trial.json.12.part", out / "trials" / ".abc.json.12.part"):
        half.write_text("half")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kilotune.workflows.augmentation_trial._tried", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_trial(chosen, out, Silent(), folds=2, seeds=1)
    left = sorted(p.relative_to(out).as_posix() for p in out.rglob("*"))
    assert left == ["trial.lock", "trials"]


def test_an_operation_that_helps_is_adopted_and_one_that_does_not_is_not() -> None:
    units = [Unit(0, seed) for seed in range(3)]
    right = {WITHOUT: 40, "swap": 80, "delete": 42, LONGER: 40}
    done = {name: {unit: tried(unit, count) for unit in units} for name, count in right.items()}
    found = decided("classify", done)
    assert {name: each.decision for name, each in found.decisions.items()} == {
        "swap": "better", "delete": "keep", LONGER: "keep",
    }  # fmt: skip
    assert found.decisions["swap"].gain.value == pytest.approx(0.4)  # type: ignore[union-attr]
    assert found.decisions["swap"].seeds == (3, 3)
    assert found.steps == right
    assert found.earned == ("swap",)
    # What longer training does as well is no merit of the operation.
    longer = {unit: tried(unit, 79) for unit in units}
    again = decided("classify", {**done, LONGER: longer})
    assert again.decisions["swap"].decision == again.decisions[LONGER].decision == "better"
    assert again.beyond["swap"].decision == "keep"
    assert again.earned == ()
