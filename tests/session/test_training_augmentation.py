"""Augmentation within a run, on a tiny random model."""

from dataclasses import replace
from pathlib import Path

import pytest

import kilotune
from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import AugmentSettings, Recipe
from kilotune.runs.record import RunFolder
from kilotune.session.training_augmentation import (
    OwnModels,
    as_document,
    augmented,
    check_record,
)
from kilotune.training import tuning
from tests.support.made import sentences
from tests.support.records import written


def recipe(folder: Path, model: Path) -> Recipe:
    rows = [f"{line},{('good', 'bad')[i % 2]}" for i, line in enumerate(sentences(40))]
    (folder / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "own.tsv").write_text("harbour\tport\nlibrary\treading room\n")
    file = folder / "recipe.yaml"
    file.write_text(
        f"data: {{train: films.csv}}\nmodel: {{name: {model}, precision: float32}}\n"
        "augment: {operations: [synonym, {op: swap, copies: 2}], synonyms: own.tsv}\n"
        "tune: {epochs: 1}\njudge: {bootstrap_samples: 100}\n"
    )
    return load_recipe(file)


def test_a_run_trains_on_more_and_says_what_it_made(tmp_path: Path, tiny_model: Path) -> None:
    run = kilotune.run(recipe(tmp_path, tiny_model), tmp_path / "run")
    folder = RunFolder(run.folder)
    told = written(folder, "augmentation.json")
    parts = written(folder, "data.json")["split"]
    made = {example["id"]: example for example in told["examples"]}
    assert told["applied"] == "once, before the first epoch, to the training part alone"
    assert told["counts"]["swap"] == {
        "asked": 50, "made": 50, "kept": told["counts"]["swap"]["kept"], "refused": {},
        "taken": told["counts"]["swap"]["taken"],
    }  # fmt: skip
    originals = [name for name in parts["train"] if name not in made]
    assert len(originals) == 25
    assert set(parts["train"]) == {*originals, *made}
    assert {example["parent"] for example in made.values()} <= set(originals)
    assert any("reading room" in example["text"] for example in made.values())
    assert not made.keys() & {*parts["validation"], *parts["test"]}


def test_a_run_goes_on_only_with_the_examples_it_began_with(tmp_path: Path) -> None:
    prepared = prepare(recipe(tmp_path, Path("smollm2")), Silent())
    assert prepared.recipe.augment.synonyms == tmp_path / "own.tsv"
    more, added = augmented(prepared, Silent())
    again, same = augmented(prepared, Silent())
    assert added is not None
    assert same == added
    assert again.parts.train == (*prepared.parts.train, *added.examples) == more.parts.train
    folder = RunFolder(tmp_path)
    folder.write(as_document(added))
    check_record(folder, added)
    with pytest.raises(KilotuneError, match="other examples than when the run began"):
        check_record(folder, replace(added, examples=added.examples[1:]))


def test_fresh_examples_in_each_epoch_are_recorded_and_the_same_when_the_run_goes_on(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(tmp_path, tiny_model)
    fresh = chosen.augment.model_copy(update={"fresh": True})
    longer = chosen.tune.model_copy(update={"epochs": 2})
    chosen = chosen.model_copy(update={"augment": fresh, "tune": longer})
    whole = kilotune.run(chosen, tmp_path / "whole")
    folder = RunFolder(whole.folder)
    told = written(folder, "augmentation.json")
    parts = written(folder, "data.json")["split"]
    assert told["applied"] == (
        "anew for each of 2 epochs, before the first, to the training part alone"
    )
    made = {example["id"]: example["epoch"] for example in told["examples"]}
    first, second = ({id for id, of in made.items() if of == epoch} for epoch in (1, 2))
    assert len(first) == len(second) > 0
    assert {*first, *second} == {id for id in parts["train"] if "@" in id}
    steps = written(folder, "judgement.json")["tuning"]["steps"]
    assert steps == 2 * -(-(25 + len(first)) // 8)

    class StopsInTheSecondEpoch(tuning.Watch):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            self.interrupted = state.global_step == steps // 2 + 1
            super().on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(tuning, "Watch", StopsInTheSecondEpoch)
    with pytest.raises(KeyboardInterrupt):
        kilotune.run(chosen, tmp_path / "parts")
    monkeypatch.undo()
    resumed = kilotune.resume(tmp_path / "parts")
    assert resumed.judgements == whole.judgements
    losses, again = (
        [line["loss"] for line in RunFolder(run.folder).read_metrics() if "loss" in line]
        for run in (whole, resumed)
    )
    assert again == pytest.approx(losses, abs=1e-6)


def test_without_operations_nothing_changes(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, Path("smollm2"))
    plain = chosen.model_copy(update={"augment": AugmentSettings()})
    prepared = prepare(plain, Silent())
    assert augmented(prepared, Silent()) == (prepared, None)


def test_the_base_model_judges_labels(tmp_path: Path, tiny_model: Path) -> None:
    chosen = recipe(tmp_path, tiny_model)
    filters = chosen.augment.filters.model_copy(update={"label_score": 0.999})
    strict = chosen.augment.model_copy(update={"filters": filters})
    prepared = prepare(chosen.model_copy(update={"augment": strict}), Silent())
    scores = OwnModels(prepared.recipe, Silent()).label_scores(prepared)(prepared.parts.train[:3])
    assert [sum(each.values()) for each in scores] == pytest.approx([1.0] * 3, abs=1e-5)
    assert {tuple(each) for each in scores} == {("bad", "good")}
    _, added = augmented(prepared, Silent())
    assert added is not None
    assert added.examples == ()
    assert added.counts["swap"].taken["label"] > 0
