"""Trials that share a loaded model: nothing of one shows in the next."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kilotune.data.example import Example
from kilotune.data.folds import make_folds
from kilotune.data.split import Split
from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable, digests_of
from kilotune.models.source import Source, locate, source_at
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.cost import Cost
from kilotune.runs.record import VALIDATION, RunFolder
from kilotune.runs.trials import Trial, TrialStore, Unit
from kilotune.session import workbench as trial
from kilotune.session.workbench import Workbench, in_steps
from kilotune.training.tuning import Interrupted, LabelledTrainer
from kilotune.workflows import run as pipeline


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    always = [
        "model.precision=float32", "tune.learning_rate=1e-2", "data.validation_fraction=0",
        "tune.epochs=1",
    ]  # fmt: skip
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=[*always, *overrides])


def workbench(chosen: Recipe) -> Workbench:
    prepared = prepare(chosen, Silent())
    folds = make_folds(prepared.parts.train, 2, chosen.seed)
    return Workbench(prepared, locate(chosen.model), folds, Silent())


def result(trial: Trial) -> tuple[object, ...]:
    return (trial.scores, trial.predictions, trial.training, trial.losses, trial.validation_losses)


@given(
    examples=st.integers(1, 400),
    added=st.integers(1, 800),
    batch_size=st.sampled_from([4, 8, 16]),
    epochs=st.integers(10, 200).map(lambda tenths: tenths / 10),
)
def test_a_control_takes_as_many_steps_to_the_step(
    examples: int, added: int, batch_size: int, epochs: float
) -> None:
    def taken(count: int, epochs: float) -> int:
        return ceil(epochs * ceil(count / batch_size))  # as the Trainer counts

    chosen = load_recipe(settings={"data": {"train": "x.csv"}, "tune": {"epochs": epochs}})
    wanted = taken(examples + added, epochs)
    longer = in_steps(chosen, taken(examples, epochs), wanted)
    assert taken(examples, longer.tune.epochs) == wanted


@pytest.mark.slow
def test_a_trial_after_others_is_one_in_a_fresh_process_to_the_bit(
    labelled: Path, tiny_model: Path
) -> None:
    chosen = recipe(labelled, tiny_model)
    used = workbench(chosen)
    settings = prepare(chosen, Silent()).recipe
    others = [
        settings.model_copy(update={"tune": settings.tune.model_copy(update=update)})
        for update in (
            {"rank": 2, "target_modules": ("q_proj",)}, {"lora_dropout": 0.2}, {"layers": "top:1"},
        )
    ]  # fmt: skip
    for other in others:
        used.run(other, Unit(1, 3), 5)
    again = used.run(settings, Unit(0, 1), 5)
    fresh = workbench(chosen).run(settings, Unit(0, 1), 5)
    assert result(again) == result(fresh)
    assert len(again.scores) == 16
    assert len(again.training) == 5
    assert again.cost.trained == fresh.cost.trained > 16 * 100
    assert result(used.run(settings, Unit(0, 2), 5)) != result(again)  # the seed counts


def test_a_trial_is_cleaned_of_what_it_learns_from_and_judged_on_everything(
    labelled: Path, tiny_model: Path
) -> None:
    rows = labelled.read_text()
    labelled.write_text(rows + "".join(f"{rows.splitlines()[i]}\n" for i in range(1, 9)))
    chosen = recipe(labelled, tiny_model)
    bench = workbench(chosen)
    assert "duplicates" in bench.facts().cleanings
    settings = prepare(chosen, Silent()).recipe
    data = settings.data.model_copy(update={"clean": ("duplicates",)})
    trials = [
        bench.run(each, Unit(fold, 0), 5)
        for each in (settings.model_copy(update={"data": data}), settings)
        for fold in (0, 1)
    ]
    for clean, plain, fold in zip(trials[:2], trials[2:], bench.folds, strict=True):
        assert clean.scores.keys() == plain.scores.keys() == {e.id for e in fold.validation}
        assert len({e.text for e in fold.train}) < len(fold.train)
        assert clean.cost.trained < plain.cost.trained


def test_the_model_is_loaded_and_each_text_rendered_once_for_all_trials(
    labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    rendered: Counter[str] = Counter()
    load, render = trial.load, trial._render

    def loaded(prepared: Any, source: Source, progress: Any) -> Any:
        loads.append(source.place)
        return load(prepared, source, progress)

    def rendering(session: Any, examples: Sequence[Example]) -> Any:
        rendered.update(example.id for example in examples)
        return render(session, examples)

    monkeypatch.setattr(trial, "load", loaded)
    monkeypatch.setattr(trial, "_render", rendering)
    bench = workbench(recipe(labelled, tiny_model))
    bench.facts()
    settings = bench.prepared.recipe
    tune = settings.tune.model_copy(update={"learning_rate": 1e-3})
    for each in (settings, settings.model_copy(update={"tune": tune})):
        for fold in (0, 1):
            bench.run(each, Unit(fold, 0), 5)
    assert loads == [str(tiny_model)]
    assert set(rendered) == {e.id for fold in bench.folds for e in fold.validation}
    assert set(rendered.values()) == {1}


def test_ctrl_c_in_the_middle_of_a_trial_leaves_the_model_as_it_was(
    labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = workbench(recipe(labelled, tiny_model, "tune.epochs=5"))
    settings = bench.prepared.recipe
    first = bench.run(settings, Unit(0, 0), 5)
    loss, steps = LabelledTrainer._loss, 0

    def stopping(self: LabelledTrainer, *given: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(self, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledTrainer, "_loss", stopping)
        with pytest.raises(Interrupted):
            bench.run(settings, Unit(1, 0), 5)
    assert steps <= 4  # of 20: the epoch's own evaluation at most
    assert result(bench.run(settings, Unit(0, 0), 5)) == result(first)


@pytest.mark.parametrize("layers", ["all", "top:1"])
def test_a_trial_is_a_plain_run_on_the_same_parts(
    labelled: Path, tiny_model: Path, tmp_path: Path, layers: str
) -> None:
    chosen = recipe(labelled, tiny_model, f"tune.layers={layers}")
    prepared = prepare(chosen, Silent())
    bench = workbench(chosen)
    trial = bench.run(prepared.recipe, Unit(0, 0), 5)
    fold = bench.folds[0]
    plain = replace(prepared, parts=Split(fold.train, fold.validation, prepared.parts.test))
    run = pipeline.start(plain, tmp_path / "run")
    rows = RunFolder(run.folder).read_predictions(VALIDATION)
    assert {row["id"]: row["tuned_prediction"] for row in rows} == trial.predictions
    # Held-out texts of which the frozen layers' states are kept are answered the same.
    kept = bench._kept
    assert (kept is not None and len(kept.rows) > 0) == (layers == "top:1")
    assert result(bench.run(prepared.recipe, Unit(0, 0), 5)) == result(trial)
    assert bench._kept is kept
    # Watching costs time and changes nothing.
    unwatched = bench.run(prepared.recipe, Unit(0, 0), 5, watched=False)
    assert unwatched.validation_losses == ()
    assert result(unwatched) == result(replace(trial, validation_losses=()))
    log = RunFolder(run.folder).read_metrics()
    assert tuple(line["loss"] for line in log if "loss" in line) == trial.losses
    assert tuple(x["eval_loss"] for x in log if "eval_loss" in x) == trial.validation_losses


@pytest.mark.parametrize(
    "overrides",
    [(), ("tune.method=dora",), ("tune.method=top_layers", "tune.layers=top:1")],
)
def test_a_released_model_is_as_it_came(tiny_model: Path, overrides: tuple[str, ...]) -> None:
    model = source_at(tiny_model).model(torch.float32)
    before, names = digests_of(model), [name for name, _ in model.named_modules()]
    settings = load_recipe(settings={"data": {"train": "x.csv"}}, overrides=overrides).tune
    tunable = Tunable(model, settings, 0, before)
    assert (
        tunable.digests == Tunable(source_at(tiny_model).model(torch.float32), settings, 0).digests
    )
    with torch.no_grad():
        for _, parameter in tunable.trained():
            parameter.add_(1)
    released = tunable.release()
    assert released is model
    assert digests_of(released) == before
    assert [name for name, _ in released.named_modules()] == names
    assert all(parameter.requires_grad for parameter in released.parameters())


def test_a_base_that_a_trial_has_changed_is_found(labelled: Path, tiny_model: Path) -> None:
    chosen = recipe(labelled, tiny_model)
    bench = workbench(chosen)
    settings = prepare(chosen, Silent()).recipe
    bench.run(settings, Unit(0, 0), 1)
    assert bench._loaded is not None
    with torch.no_grad():
        bench._loaded.model.model.norm.weight[0] += 1
    with pytest.raises(KilotuneError, match=r"not as it was before the trial: model\.norm\.weight"):
        bench.run(settings, Unit(1, 0), 1)


def test_finished_trials_are_found_again_by_what_decides_them(tmp_path: Path) -> None:
    def settings(*overrides: str) -> Recipe:
        return load_recipe(settings={"data": {"train": "/x.csv"}}, overrides=overrides)

    trial = Trial(
        Unit(0, 1), {"data:2": 1.0}, {"data:2": "good"}, {}, (1.5, float("nan")), (1.0,),
        Cost(1.5, 100, 10), 0.1,
    )  # fmt: skip
    store = TrialStore(tmp_path / "trials", "f")
    store.keep(settings(), trial)
    found = TrialStore(tmp_path / "trials", "f").find(settings("seed=7"), Unit(0, 1))
    assert found is not None
    assert repr(found) == repr(trial)
    assert store.find(settings("tune.report_to=[tensorboard]"), Unit(0, 1)) is not None
    assert store.find(settings("tune.rank=4"), Unit(0, 1)) is None
    assert store.find(settings(), Unit(1, 1)) is None
    assert TrialStore(tmp_path / "trials", "other").find(settings(), Unit(0, 1)) is None
    (path,) = (tmp_path / "trials").iterdir()
    path.write_text("{")
    with pytest.raises(KilotuneError, match="damaged"):
        store.find(settings(), Unit(0, 1))
