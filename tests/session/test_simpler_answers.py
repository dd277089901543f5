"""Simpler systems of a run answer new rows as they answered when they were judged."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import LinearClassifier
from kilotune.runs.fitted_baselines import FittedBaselines, save_baselines
from kilotune.runs.record import RunFolder
from kilotune.session import simpler_answers
from kilotune.workflows.predict import predict
from kilotune.workflows.run import open_run
from tests.support.records import written


@pytest.mark.parametrize("system", ["tfidf", "states", "few-shot", "tuned"])
def test_the_answers_are_right_as_often_as_in_the_run_they_were(
    system: str, tiny_run: Path, tmp_path: Path
) -> None:
    run = open_run(tiny_run)
    data = RunFolder(tiny_run).read_recipe().data.train
    lines = data.read_text().splitlines()
    ids = written(RunFolder(tiny_run), "data.json")["split"]["test"]
    asked = tmp_path / "asked.csv"
    rows = [lines[int(id.split(":")[1]) - 1] for id in ids]
    asked.write_text("\n".join([lines[0], *rows]) + "\n")
    done = predict(tiny_run, asked, tmp_path / "out.csv", system=system)
    assert done.rows == len(ids)
    with (tmp_path / "out.csv").open() as file:
        answered = list(csv.DictReader(file))
    right = [row["prediction"] == row["label"] for row in answered]
    (judged,) = (j for j in run.judgements if j.name == system.replace("-", "_"))
    assert sum(right) / len(right) == pytest.approx(judged.figures["accuracy"].value)
    assert [row["text"] for row in answered] == [row.split(",")[0] for row in rows]
    if system in ("tfidf", "states"):
        assert all(0.5 <= float(row["probability"]) <= 1 for row in answered)


def test_a_system_that_the_run_does_not_have_is_refused_with_those_that_it_has(
    tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="has kept nothing of the system 'encoder'") as caught:
        predict(tiny_run, labelled, tmp_path / "out.csv", system="encoder")
    assert caught.value.fix == "It has: tfidf, states, few-shot"
    with pytest.raises(KilotuneError, match="no system is called 'words'"):
        predict(tiny_run, labelled, tmp_path / "out.csv", system="words")
    before = shutil.copytree(tiny_run, tmp_path / "before")
    (before / "baselines.json").unlink()
    with pytest.raises(KilotuneError, match="no baselines were kept"):
        predict(before, labelled, tmp_path / "out.csv", system="tfidf")
    assert not (tmp_path / "out.csv").exists()


def test_a_long_row_behind_examples_is_answered_like_the_others(
    tiny_run: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.csv"
    asked.write_text(f"text,label\nfilm 1 was great,\n{'endless words ' * 300},\n")
    done = predict(tiny_run, asked, tmp_path / "out.csv", system="few-shot")
    assert (done.rows, done.not_answered) == (2, {})


@pytest.mark.parametrize("now", [[0.0, 1.0], [1.0, 0.0, 0.0]])
def test_another_encoder_than_the_one_of_the_run_is_refused(
    now: list[float], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    classifier = LinearClassifier(("bad", "good"), np.array([[1.0, 0.0]]), np.zeros(1))
    probe = np.array([1.0, 0.0], dtype=np.float32)
    save_baselines(run, FittedBaselines(encoder=("minilm", probe, classifier)))
    asked = tmp_path / "asked.csv"
    asked.write_text("text,label\none,\n")

    def embeds(vector: list[float]) -> None:
        embedder = lambda texts: torch.tensor([vector] * len(texts))  # noqa: E731
        monkeypatch.setattr(simpler_answers, "load_embedder", lambda place: embedder)

    embeds([1.0, 0.0])
    predict(run.path, asked, tmp_path / "same.csv", system="encoder")
    assert (tmp_path / "same.csv").read_text().splitlines()[1].startswith("one,,good,0.73")
    embeds(now)
    with pytest.raises(KilotuneError, match="not the sentence encoder of the run") as caught:
        predict(run.path, asked, tmp_path / "other.csv", system="encoder")
    assert caught.value.where == "minilm"
