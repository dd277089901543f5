"""Files whose right advice is known, from the file to the advice."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.recipe.load import load_recipe
from kilotune.runs.outcomes import AdviceDocument
from kilotune.runs.record import RunFolder
from kilotune.workflows.advise import Advised
from tests.support.made import sentences

COUNT = 200


def written(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "rows.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def advised(data: Path, *overrides: str, model: Path | None = None) -> Advised:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model or "none/there")}}
    overrides = ("judge.bootstrap_samples=200", *overrides)
    return kilotune.advise(load_recipe(settings=settings, overrides=overrides))


def codes(found: Advised) -> list[str]:
    return [one.code for one in found.advice]


def test_a_task_that_one_word_decides_needs_a_bag_of_words(tmp_path: Path) -> None:
    words = {"good": "splendid", "bad": "dreadful"}
    labels = [("good", "bad")[n % 2] for n in range(COUNT)]
    rows = [(f"{text} {words[label]}", label)
            for text, label in zip(sentences(COUNT), labels, strict=True)]  # fmt: skip
    found = advised(written(tmp_path, rows))
    assert codes(found)[0] == "bag-of-words"
    assert "tune" not in codes(found)
    assert not found.wanting
    assert found.systems[1].figures["accuracy"].value > 0.97
    # The test is closed: a fifth of the file was left out of everything.
    assert sum(found.examples.values()) == found.systems[1].examples < COUNT
    assert found.asked_model is None


def test_labels_by_chance_are_no_signal(tmp_path: Path) -> None:
    rng = random.Random(4)
    found = advised(written(tmp_path, [(t, rng.choice("ab")) for t in sentences(COUNT)]))
    assert codes(found) == ["no-signal"]
    assert found.wanting


def test_half_of_the_labels_contradicting_are_repaired_first(tmp_path: Path) -> None:
    texts = sentences(COUNT // 2)
    rows = [(text, label) for text in texts for label in "ab"]
    rows = [(t, b) for t, b in rows[: COUNT // 2]] + [(t, "a") for t in sentences(COUNT)[50:]]
    found = advised(written(tmp_path, rows))
    assert codes(found)[0] == "repair"
    assert "nothing can learn both" in str(found.advice[0])


def test_wrong_labels_are_repaired_first_and_hard_texts_are_not(tmp_path: Path) -> None:
    words = {"good": "splendid", "bad": "dreadful"}
    rng = random.Random(0)
    rows = []
    for n, text in enumerate(sentences(400)):
        label = ("good", "bad")[n % 2]
        said = ("bad", "good")[n % 2] if rng.random() < 0.25 else label
        rows.append((f"{text} {words[label]}", said))
    found = advised(written(tmp_path, rows))
    assert codes(found)[:2] == ["repair", "bag-of-words"]
    assert "--label-errors" in str(found.advice[0])


def test_a_rare_label_wants_more_labels(tmp_path: Path) -> None:
    words = {"good": "splendid", "bad": "dreadful", "odd": "peculiar"}
    labels = ["odd" if n < 5 else ("good", "bad")[n % 2] for n in range(COUNT)]
    rows = [(f"{text} {words[label]}", label)
            for text, label in zip(sentences(COUNT), labels, strict=True)]  # fmt: skip
    found = advised(written(tmp_path, rows))
    assert codes(found)[:2] == ["label-more", "bag-of-words"]
    assert "'odd' (4)" in str(found.advice[0])


def test_free_answers_are_tuned_for(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": text, "completion": f"About {text.lower()}."}) + "\n"
            for text in sentences(60)
        )
    )
    found = advised(path, "model.precision=float32", model=tiny_model)
    assert codes(found)[0] == "tune"
    assert found.asked_model == str(tiny_model)
    assert [one.name for one in found.systems] == ["majority", "tfidf", "base", "few_shot"]


def test_groups_that_leave_no_folds_are_said_and_leave_nothing_to_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = "".join(f"{t},{'ab'[n % 2]},{n % 4}\n" for n, t in enumerate(sentences(60)))
    path.write_text("text,label,who\n" + rows)
    found = advised(path, "data.group=who")
    assert [one.name for one in found.systems] == ["majority"]
    assert codes(found) == []


def test_the_command_prints_advice_or_one_document(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    command = ["advise", str(labelled), "--model", str(tiny_model)]
    done = CliRunner().invoke(app, [*command, "--json"])
    document = json.loads(done.stdout)
    assert (done.exit_code, document["status"], document["test"]) == (0, 0, "closed")
    assert document["advice"][0]["code"] == "bag-of-words"
    assert document["advice"][0]["message"].startswith("Take a bag of words (TF-IDF) (macro-F1 1.0")
    assert {one["name"] for one in document["systems"]} >= {"tfidf", "states", "base"}
    (own,) = (one for one in document["models"] if one["name"] == str(tiny_model))
    assert own["fits"]
    done = CliRunner().invoke(app, [*command, "--no-model"])
    assert "The held-out test was not looked at." in done.stdout
    assert "hidden states" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 or "bag-of-words" in done.stdout


def test_what_a_run_would_refuse_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n,a\nx,b\n")
    done = CliRunner().invoke(app, ["advise", str(tmp_path / "rows.csv"), "--json"])
    assert done.exit_code == 2
    assert {one["code"] for one in json.loads(done.stdout)["findings"]} >= {"empty-text"}


def test_a_run_keeps_what_its_baselines_advised(tiny_run: Path) -> None:
    found = RunFolder(tiny_run).read(AdviceDocument)
    assert found.advice[0].code == "bag-of-words"
    assert [(curve.system, curve.rows) for curve in found.curves] == [("tfidf", 64), ("states", 64)]
    assert "What the baselines advised" in (tiny_run / "report.html").read_text()


@pytest.mark.slow
def test_film_reviews_are_worth_the_language_model(smollm2: Path, tmp_path: Path) -> None:
    """What is measured of them: hidden states 0.83, a bag of words 0.61, tuned 0.86."""
    from kilotune.data.samples import write_sample

    train, test = write_sample("movie-reviews", tmp_path)
    command = [sys.executable, "-m", "kilotune", "advise", str(train), "--test", str(test)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert [one["code"] for one in document["advice"]][:2] == ["states", "tune"]
    assert done.returncode == 0
