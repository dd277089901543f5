"""The Python interface of a finished run: its figures, and answers to texts in memory."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import kilotune
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from kilotune.session.simpler_answers import Answer
from kilotune.workflows.predict import Tuned
from kilotune.workflows.run import Run
from tests.support.tiny import labelled_csv

TEXTS = ["film 1 was great", "film 2 was awful", "a film", "film 1 was great"]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    data = labelled_csv(folder / "films.csv", 60)
    settings = {
        "model.name": str(tiny_model), "model.precision": "float32", "tune.learning_rate": 1e-2,
        "tune": {"epochs": 2, "refit": "never"}, "judge.forgetting": "never",
        "judge.bootstrap_samples": 200, "judge.baselines": [],
    }  # fmt: skip
    return kilotune.run(data, folder / "run", settings=settings)


def test_settings_are_by_full_names_or_nested(run: Run) -> None:
    recipe = kilotune.load_recipe(run.folder / "recipe.yaml")
    assert (recipe.tune.epochs, recipe.tune.refit, recipe.judge.forgetting) == (2, "never", "never")
    with pytest.raises(KilotuneError, match=r"no such setting; did you mean tune\.rank") as caught:
        kilotune.plan(recipe, settings={"tune.rankk": 3, "tune.epochs": -1})
    assert "tune.epochs: must be more than 0" in str(caught.value)
    with pytest.raises(KilotuneError, match=r"lr: no such setting; here it is tune\.learning_rate"):
        kilotune.run(recipe, settings={"lr": 1e-3})


def test_texts_are_answered_as_a_file_of_them_is(run: Run, tmp_path: Path) -> None:
    new, out = tmp_path / "new.csv", tmp_path / "answered.csv"
    new.write_text("\n".join(["text", *TEXTS]) + "\n")
    for system in ("tuned", "tfidf"):
        kilotune.predict(run.folder, new, out, system=system)
        with out.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        out.unlink()
        found = run.predict(TEXTS, system=system)
        assert [one.text for one in found] == TEXTS
        assert [one.answer for one in found] == [row["prediction"] for row in rows]
        sure = [row["probability"] for row in rows]
        assert [one.probability for one in found] == [float(one) if one else None for one in sure]


def test_one_text_is_not_taken_for_its_letters(run: Run) -> None:
    with pytest.raises(KilotuneError, match="one text, not a list"):
        run.predict("a film")
    assert run.predict([]) == []


def test_a_run_shows_its_verdict_and_figures(run: Run) -> None:
    again = kilotune.open_run(run.folder)
    assert again.test == run.test
    assert again.test["accuracy"].value == run.judgements[-1].figures["accuracy"].value
    assert str(run.test["accuracy"]) in repr(run)
    assert len(repr(run)) < 300
    html = run._repr_html_()
    assert "<td>tuned model</td>" in html
    assert str(run.test["macro_f1"]) in html


def test_nothing_but_what_was_asked_for_is_written_to_the_screen(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    run.predict(TEXTS[:1])
    kilotune.render(run.folder / "recipe.yaml")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("several", [False, True])
def test_texts_are_put_behind_the_system_message_of_the_runs_own_rows(
    several: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"messages": [
            {"role": "system", "content": f"Be brief{n % 2 if several else ''}."},
            {"role": "user", "content": f"film {n} was {('great', 'awful')[n % 2]}"},
            {"role": "assistant", "content": ("good", "bad")[n % 2]},
        ]}
        for n in range(30)
    ]  # fmt: skip
    data = tmp_path / "films.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)) + "\n")
    settings = {
        "model.name": str(tiny_model), "model.precision": "float32", "tune.epochs": 1,
        "judge.forgetting": "never", "judge.bootstrap_samples": 50, "judge.base_check": "say",
        "judge.baselines": [], "tune.refit": "never",
    }  # fmt: skip
    run = kilotune.run(data, tmp_path / "run", settings=settings)
    if several:
        with pytest.raises(KilotuneError, match="system messages of their own, which differ"):
            run.predict(TEXTS)
        return
    asked = []
    answers = Tuned.answers

    def noted(self: Tuned, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        asked.extend(examples)
        return answers(self, examples, start)

    monkeypatch.setattr(Tuned, "answers", noted)
    found = run.predict(["film 1 was great", " "])
    assert [[m.role for m in example.messages] for example in asked] == [["system", "user"]]
    assert asked[0].messages[0].text == "Be brief."
    assert found[1].answer == ""
