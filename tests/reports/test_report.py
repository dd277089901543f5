from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Unavailable
from kilotune.evaluation.health import Health
from kilotune.evaluation.judgement import judge_system
from kilotune.evaluation.verdict import NextStep, Verdict
from kilotune.messages.sentences import phrase
from kilotune.models.proof import FreezeProof
from kilotune.recipe.load import load_recipe
from kilotune.reports.build import build_report
from kilotune.reports.view import before_after, read_run
from kilotune.runs.documents import FindingsDocument
from kilotune.runs.outcomes import FreezeProofDocument, JudgementDocument, VerdictDocument
from kilotune.runs.record import RunFolder, create_run
from tests.support.records import data_document, environment_document, judgement_document


def row(number: int, base: str, tuned: str, reference: str = "a") -> dict[str, object]:
    return {
        "id": f"test:{number}",
        "prompt": f"<b>text {number}</b>",
        "reference": reference,
        "base_output": base,
        "base_prediction": base,
        "tuned_output": tuned,
        "tuned_prediction": tuned,
        "base_right": base == reference,
        "tuned_right": tuned == reference,
        "base_score": float(base == reference),
        "tuned_score": float(tuned == reference),
    }


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = create_run(tmp_path / "films", "films")
    made.write_recipe(load_recipe(settings={"data": {"train": str(tmp_path / "x.csv")}}))
    rows = [row(1, "b", "a"), row(2, "a", "a"), row(3, "a", "b"), row(4, "", "a")] * 2
    made.write_predictions(rows)
    references = [r["reference"] for r in rows]
    systems = {name: [r[f"{name}_prediction"] for r in rows] for name in ("base", "tuned")}
    systems = {"majority": references, "tfidf": references, **systems}
    judged = [
        judge_system(
            name,
            "classify",
            references,
            said,
            ["a", "b"],
            settings={"samples": 50, "seed": 0},
            health=Health(4, 2, 2, 1, 0, 0, 0, 3) if name == "tuned" else None,
        )
        for name, said in systems.items()
    ]
    made.write(judgement_document(judged))
    step = NextStep("--set tune.epochs=6", phrase("more-steps"))
    said, beaten = (phrase("as-recorded", text=text) for text in ("underfit: <5%", "Beaten"))
    verdict = Verdict("underfit", said, (beaten,), {}, (step,))
    made.write(VerdictDocument(verdict=verdict))
    made.write(FreezeProofDocument(proof=FreezeProof({"w": ("x", "x")}, ("a", "b"), (), {})))
    made.write(data_document(train=["1"], validation=["2"], test=["3"]))
    made.write(FindingsDocument(findings=()))
    made.write(environment_document("now"))
    made.append_metrics({"step": 1, "loss": 2.0})
    made.append_metrics({"step": 1, "eval_loss": 1.0, "eval_macro_f1": 0.5})
    return made


def test_the_page_holds_verdict_figures_and_examples_and_needs_nothing_else(
    folder: RunFolder,
) -> None:
    page = build_report(folder).read_text(encoding="utf-8")
    body = page[page.index("<body>") :]
    for words in (
        "underfit: &lt;5%.",
        "Beaten.",
        "kilotune run films/recipe.yaml --set tune.epochs=6",
        "tuned model",
        "2 better, 1 worse, 1 the same",
        "0.750",
        "at the length limit",
        '<td class="number">50%</td><td class="number">25%</td><td class="number">75%</td>',
    ):
        assert words in body, words
    # Outside plotly's own code nothing points anywhere.
    assert "http" not in body


def test_the_same_records_make_the_same_bytes(folder: RunFolder) -> None:
    first = build_report(folder).read_bytes()
    assert build_report(folder).read_bytes() == first


def test_what_users_wrote_is_escaped(folder: RunFolder) -> None:
    page = build_report(folder).read_text(encoding="utf-8")
    assert "&lt;b&gt;text 1&lt;/b&gt;" in page
    assert "<b>text" not in page


def test_the_view_recomputes_nothing(folder: RunFolder) -> None:
    view = read_run(folder)
    tuned = view.systems[-1]
    assert (tuned.title, tuned.unreadable) == ("tuned model", 0)
    assert tuned.figures["accuracy"].value == 0.75
    assert view.systems[2].unreadable == 2
    assert (view.frozen, view.moved, view.examples) == (1, 2, 8)


def ids(rows: list[dict[str, object]], count: int) -> dict[str, list[str]]:
    return {name: [c.id for c in group] for name, group in before_after(rows, count).items()}


def test_better_worse_and_unchanged_examples_are_shown_apart_and_none_is_crowded_out() -> None:
    rows = [row(i, "b", "a") for i in range(20)] + [row(30, "a", "b"), row(31, "a", "a")]
    assert ids(rows, 6) == {
        "better": [f"test:{i}" for i in range(4)],
        "worse": ["test:30"],
        "the same": ["test:31"],
    }
    few = ids([row(1, "a", "a"), row(2, "b", "a")], 10)
    assert few == {"better": ["test:2"], "worse": [], "the same": ["test:1"]}
    assert ids(rows, 0) == {"better": [], "worse": [], "the same": []}
    worse = ids([row(i, "a", "b") for i in range(20)], 10)
    assert len(worse["worse"]) == 10


def test_the_most_changed_come_first() -> None:
    rows = [
        {**row(i, "x", "y"), "tuned_score": score} for i, score in enumerate((0.2, 0.9, 0, 0.5))
    ]
    rows.append(row(4, "x", "x"))
    assert ids(rows, 10) == {
        "better": ["test:1", "test:3", "test:0"],
        "worse": [],
        "the same": ["test:2", "test:4"],
    }


def test_a_run_without_its_records_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data.json").touch()
    with pytest.raises(KilotuneError, match="not a run folder"):
        build_report(RunFolder(tmp_path))


def test_a_figure_of_too_few_examples_is_called_unavailable(folder: RunFolder) -> None:
    judgement = folder.read(JudgementDocument)
    none = Unavailable("4 examples; at least 6 are needed")
    for system in judgement.test:
        system.figures["accuracy"] = none
    judgement.gains["accuracy"] = none
    folder.write(judgement)
    body = build_report(folder).read_text(encoding="utf-8").partition("<body>")[2]
    said = '<span class="quiet" title="4 examples; at least 6 are needed">unavailable</span>'
    assert body.count(said) == 5
    assert f"accuracy {said} (paired bootstrap)" in body


def test_further_figures_are_folded_away(folder: RunFolder) -> None:
    body = build_report(folder).read_text(encoding="utf-8").partition("<body>")[2]
    main, _, further = body.partition("Further figures")
    assert "accuracy +25.0 points [-12.5, +50.0]" in main
    assert "weighted F1" not in main
    assert "weighted F1" in further
    assert "true label by row" in further
