"""A plan, from data and a configuration."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import kilotune.workflows.plan
from kilotune.models.size import model_size
from kilotune.models.source import source_at
from kilotune.planning.job import ExecutionPath
from kilotune.planning.speed import Speed, measure_speed
from kilotune.planning.ways import Way
from kilotune.training import tuning as training
from kilotune.training.memory import USABLE
from kilotune.workflows.plan import plan
from kilotune.workflows.run import run
from tests.support.planned import recipe_of
from tests.support.tiny_vision import picture, write_kind


def test_a_plan_of_a_tiny_model_loads_no_weights(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = []

    def measured(*arguments: Any) -> Speed:
        speeds.append(measure_speed(*arguments, seconds=0.01))
        return speeds[-1]

    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", measured)
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    overrides = ["tune.layers=top:1", "model.precision=float32", "tune.epochs=1"]
    made = plan(recipe_of(labelled, tmp_path, *overrides))
    real = source_at(tiny_model).model(torch.float32)
    assert made.size == model_size(real)
    assert speeds == [made.speed]
    assert min(made.speed.products, made.speed.elements) > 1e6
    assert [way.name for way in made.ways] == ["padded", "shared", "cached", "streamed"]
    assert made.ways[2].step < made.ways[1].step < made.ways[0].step
    assert made.cache_bytes == int((made.work.train + made.work.validation)
                                   * made.work.length * 32 * 4)  # fmt: skip
    assert all(fit.way is not None and fit.way.name != "streamed" for fit in made.accelerators)


@pytest.mark.parametrize(("folds", "words"), [("auto", "4 more folds"), ("never", "")])
def test_a_plan_says_that_folds_are_tuned_on_too(
    folds: str, words: str, labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilotune.session.out_of_fold.ENOUGH", 100)
    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", lambda *_: Speed(1e11, 1e10))
    never = ("tune.refit=never", f"judge.out_of_fold={folds}")
    made = plan(recipe_of(labelled, tiny_model, *never))
    assert bool(made.uncounted) == bool(words)
    assert words in "".join(made.uncounted)


@pytest.mark.parametrize(("fraction", "said"), [(0.2, True), (0, False)])
def test_a_plan_says_that_the_final_model_is_tuned_anew(
    fraction: float, said: bool, labelled: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", lambda *_: Speed(1e11, 1e10))
    made = plan(recipe_of(labelled, tiny_model, f"data.validation_fraction={fraction}"))
    assert ("final model" in "".join(made.uncounted)) is said


def test_a_run_takes_the_micro_batch_that_was_planned(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", lambda *_: Speed(1e11, 1e10))
    settings = recipe_of(labelled, tiny_model, "tune.epochs=1", "judge.forgetting=never")

    def planned(usable: int) -> Way:
        monkeypatch.setattr(kilotune.workflows.plan, "available_bytes", lambda: usable)
        (way,) = (way for way in plan(settings).ways if way.name is ExecutionPath.SHARED)
        return way

    assert planned(10**12).micro_batch == 8
    usable = next(room for room in range(10**6, 10**8, 10**6) if planned(room).micro_batch == 4)
    # What is in memory when the run looks for room is no longer free.
    held = planned(usable).memory
    before = held.weights + held.trained * 2 // 5  # adapters and where they began
    monkeypatch.setattr(training, "available_bytes", lambda: int(usable - USABLE * before))
    folder = run(settings, tmp_path / "run").folder
    tuning = json.loads((folder / "judgement.json").read_text())["tuning"]
    assert tuning["agreement"]["path"] == "packed"
    assert tuning["micro_batch_size"] == 4


def test_images_are_counted_where_a_processor_is_there_and_the_tower_is_said_not_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", lambda *_: Speed(1e11, 1e10))
    model, data = write_kind("qwen2_vl", tmp_path / "model"), tmp_path / "data.csv"
    pictures = [picture(tmp_path / f"{n}.png", n, (56, 56 + 28 * (n % 2))) for n in range(40)]
    rows = [f"{file.name},what is it,{'odd' if n % 2 else 'even'}" for n, file in
            enumerate(pictures)]  # fmt: skip
    data.write_text("\n".join(["image,text,label", *rows]) + "\n")
    made = plan(recipe_of(data, model, "tune.refit=never"))
    seen = made.work.train + made.work.validation
    # 28 by 28 pixels a token: 4 or 6 of an image, as they are split.
    assert made.work.images == seen
    assert 4 * seen < made.work.image_tokens < 6 * seen
    assert made.ways[0].memory.features == made.work.image_tokens * 32 * (
        2 if made.precision == "bfloat16" else 4
    )
    assert made.uncounted == ("what the vision tower takes to see images, in time and in memory",)

    (tmp_path / "alone").mkdir()
    shutil.copy(model / "config.json", tmp_path / "alone")
    without = plan(recipe_of(data, tmp_path / "alone", "tune.refit=never"))
    assert (without.work.images, without.work.image_tokens) == (seen, 0)
    assert not without.work.counted
    assert f"the tokens of {seen} images" in without.uncounted[0]
