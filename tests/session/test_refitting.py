"""The final model, tuned on validation too: as a plain training on all of it would be."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

import kilotune
from kilotune.data.files.writers import write_table
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.outcomes import FreezeProofDocument, JudgementDocument
from kilotune.runs.record import HELD_OUT, VALIDATION, RunFolder
from kilotune.session.out_of_fold import more_folds
from kilotune.session.refitting import refits
from kilotune.session.workbench import as_tuned, planned_steps
from kilotune.training.tuning import Interrupted
from kilotune.training.watch import Watch
from kilotune.workflows.run import Run
from tests.support.tiny import labelled_csv

WEIGHTS = "adapter_model.safetensors"


def recipe(data: Path, model: Path, *more: str) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    always = [
        "model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=3", "tune.refit=auto",
        "judge.bootstrap_samples=200", "judge.forgetting=never", "judge.baselines=[]",
    ]  # fmt: skip
    return load_recipe(settings=settings, overrides=[*always, *more])


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("refitted")
    data = labelled_csv(folder / "films.csv", 60)
    return kilotune.run(recipe(data, tiny_model), folder / "run")


def trained_plainly(run: Run, folder: Path, *more: str) -> Run:
    """A run of its own on the training and validation examples of `run`, in that order."""
    held = RunFolder(run.folder)
    judged, split = held.read(JudgementDocument), held.read(DataDocument).split
    assert judged.refit is not None
    before = held.read_recipe()
    rows = before.data.train.read_text().splitlines()

    def part(name: str, ids: tuple[str, ...]) -> Path:
        texts = [rows[int(id.split(":")[1]) - 1].rsplit(",", 1) for id in ids]
        table = [{"text": text, "label": label} for text, label in texts]
        write_table(folder / name, ("text", "label"), table)
        return folder / name

    train = part("train.csv", (*split.train, *split.validation))
    every = -(-len([*split.train, *split.validation]) // 8)
    plain = recipe(
        train, Path(before.model.name), "data.validation_fraction=0",
        f"data.test={part('test.csv', split.test)}", "tune.refit=never",
        f"tune.epochs={(judged.refit.steps - 0.5) / every}", *more,
    )  # fmt: skip
    return kilotune.run(plain, folder / "plain")


def test_the_final_model_is_that_of_a_plain_training_on_all_that_was_labelled(
    run: Run, tmp_path: Path
) -> None:
    judged = RunFolder(run.folder).read(JudgementDocument)
    assert judged.refit is not None
    assert judged.refit.steps == judged.tuning.best_step
    alone = trained_plainly(run, tmp_path)
    expected, found = (load_file(one.weights / WEIGHTS) for one in (alone, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    assert [j.figures for j in alone.judgements] == [j.figures for j in run.judgements]


def test_so_it_is_behind_folds_and_of_whole_layers(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # States from the cache are rounded as they were computed, in other batches.
    layers = ("tune.method=top_layers", "tune.layers=top:1", "tune.cache=never")
    data = labelled_csv(tmp_path / "films.csv", 60)
    with monkeypatch.context() as patch:
        patch.setattr("kilotune.session.out_of_fold.ENOUGH", 24)
        run = kilotune.run(recipe(data, tiny_model, *layers), tmp_path / "run")
    assert (run.folder / HELD_OUT).exists()
    alone = trained_plainly(run, tmp_path, *layers)
    expected, found = (load_file(one.weights / "model.safetensors") for one in (alone, run))
    assert all(expected[name].equal(found[name]) for name in expected)


def test_validation_was_answered_by_the_model_before_and_the_proof_is_of_the_final_one(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    data = RunFolder(run.folder).read_recipe().data.train
    before = kilotune.run(recipe(data, tiny_model, "tune.refit=never"), tmp_path / "run")
    said = [RunFolder(one.folder).read_predictions(VALIDATION) for one in (before, run)]
    assert said[0] == said[1]
    weights = [load_file(one.weights / WEIGHTS) for one in (before, run)]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])
    proofs = [RunFolder(one.folder).read(FreezeProofDocument).proof for one in (before, run)]
    assert proofs[0].frozen == proofs[1].frozen
    assert proofs[1].moved


def test_a_validation_file_of_its_own_is_not_learnt_from(tiny_model: Path, tmp_path: Path) -> None:
    data = labelled_csv(tmp_path / "films.csv", 60)
    other = labelled_csv(tmp_path / "others.csv", 70)
    given = recipe(data, tiny_model, f"data.validation={other}")
    assert (
        RunFolder(kilotune.run(given, tmp_path / "run").folder).read(JudgementDocument).refit
        is None
    )


def test_one_that_is_stopped_while_the_final_model_is_tuned_goes_on_to_the_same(
    run: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = RunFolder(run.folder).read_recipe().data.train
    folder = tmp_path / "run"

    def stop(self: Watch, args: object, state: object, control: object, **rest: object) -> None:
        if self.folder.name == "refit":
            self.interrupted = True

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_begin", stop)
        with pytest.raises(Interrupted):
            kilotune.run(recipe(data, tiny_model), folder)
    assert [path.name for path in (folder / "refit").iterdir()] == ["checkpoint-1"]
    again = kilotune.resume(folder)
    assert (again.weights / WEIGHTS).read_bytes() == (run.weights / WEIGHTS).read_bytes()
    assert [j.figures for j in again.judgements] == [j.figures for j in run.judgements]


def test_a_training_that_ended_early_was_on_a_number_of_steps_all_the_same(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    made = recipe(labelled_csv(tmp_path / "films.csv", 125), tiny_model, "tune.epochs=10")
    prepared = prepare(made, Silent())
    tuning = RunFolder(run.folder).read(JudgementDocument).tuning
    train = prepared.parts.train
    each = -(-len(train) // 8)
    assert planned_steps(made, train) == 10 * each
    for steps, best in ((10 * each, 10 * each), (5 * each, 3 * each), (6 * each, 2 * each)):
        again = as_tuned(made, train, replace(tuning, steps=steps, best_step=best))
        assert planned_steps(again, train) == best
        assert again.tune.stopping.metric == "none"


def test_a_validation_part_that_the_data_name_is_not_learnt_from(
    tiny_model: Path, tmp_path: Path
) -> None:
    lines = labelled_csv(tmp_path / "films.csv", 60).read_text().splitlines()
    parts = ["part", *(("train", "train", "dev", "test")[n // 2 % 4] for n in range(60))]
    rows = [f"{line},{part}" for line, part in zip(lines, parts, strict=True)]
    (tmp_path / "parts.csv").write_text("\n".join(rows) + "\n")
    named = recipe(tmp_path / "parts.csv", tiny_model, "data.split=part")
    prepared = prepare(named, Silent())
    assert len(prepared.parts.validation) == parts.count("dev")
    assert not refits(prepared)
    assert more_folds(prepared, Silent()) == ()
    none_split_off = prepare(named.with_settings({"data.validation_fraction": 0}), Silent())
    assert none_split_off.recipe.tune.stopping.metric == "macro_f1"
