"""Surveys whose right advice is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from kilotune.data.finding import Finding, finding
from kilotune.evaluation.evidence import wilson
from kilotune.evaluation.label_errors import Contradicted
from kilotune.evaluation.learning_curve import learning_curve
from kilotune.evaluation.recommendation import recommend, wanting
from kilotune.evaluation.survey import Survey

ROWS = 300
LABELS = ("bad", "good")


def made(
    accuracy: Mapping[str, float],
    *,
    truth: Sequence[str] | None = None,
    findings: Sequence[Finding] = (),
    asked: int = 100,
) -> Survey:
    """A survey of systems that are right so often; what writes is asked `asked` examples."""
    truth = truth or [LABELS[n % 2] for n in range(ROWS)]
    labels = tuple(sorted(set(truth)))
    # One order of difficulty for all: a better system is right where a worse one is, and more.
    place = np.random.default_rng(0).permutation(len(truth)) / len(truth)
    by_id = {f"data:{n}": label for n, label in enumerate(truth)}
    answers = {}
    for name, share in accuracy.items():
        ids = list(by_id)[: asked if name in ("base", "few_shot") else None]
        answers[name] = {
            id: by_id[id] if place[n] < share else next(x for x in labels if x != by_id[id])
            for n, id in enumerate(ids)
        }
    majority = dict.fromkeys(by_id, labels[0])
    resampling = {"samples": 300, "seed": 0}
    return Survey(
        "classify", labels, by_id, {"majority": majority, **answers}, resampling, {}, findings
    )


def codes(survey: Survey) -> list[str]:
    return [one.code for one in recommend(survey)]


@pytest.mark.parametrize(
    ("accuracy", "right"),
    [
        ({"tfidf": 0.96, "base": 0.7, "states": 0.97}, ["bag-of-words"]),
        ({"tfidf": 0.70, "encoder": 0.93, "base": 0.6, "states": 0.8}, ["encoder"]),
        ({"tfidf": 0.62, "base": 0.55, "states": 0.86, "few_shot": 0.6}, ["states", "tune"]),
        ({"tfidf": 0.62, "base": 0.92, "states": 0.92}, ["prompt"]),
        ({"tfidf": 0.62, "base": 0.6, "states": 0.75, "few_shot": 0.88}, ["prompt", "tune"]),
        # An encoder that beats all that the language model knows is no reason to tune that.
        ({"tfidf": 0.60, "encoder": 0.75, "base": 0.5, "states": 0.62}, ["encoder"]),
        ({"tfidf": 0.65, "base": 0.6, "states": 0.66}, ["bag-of-words", "tune"]),
        ({"tfidf": 0.70}, ["bag-of-words", "tune"]),
        ({"tfidf": 0.85}, ["bag-of-words"]),
        ({"tfidf": 0.50, "base": 0.51, "states": 0.52}, ["no-signal"]),
    ],
)
def test_the_cheapest_that_is_as_good_is_advised(
    accuracy: dict[str, float], right: list[str]
) -> None:
    assert codes(made(accuracy)) == right


def test_advice_says_its_figures() -> None:
    (states, tune) = recommend(made({"tfidf": 0.62, "base": 0.55, "states": 0.86}))
    assert str(states).startswith(
        "Take logistic regression on the base model's hidden states (macro-F1 0.860 [0.8"
    )
    assert "300 examples" in str(states)
    assert tune.with_sentences()["values"]["gain"]["value"] == pytest.approx(24, abs=0.5)


def test_contradictions_leaks_and_repeats_come_first() -> None:
    found = [
        finding("conflicting-labels", [f"data:{n}" for n in range(60)], texts=30, targets="labels"),
        finding("leakage", ["test:1"], part="test", source="training"),
        finding("duplicate", [f"data:{n}" for n in range(70)]),
    ]
    advice = recommend(made({"tfidf": 0.85}, findings=found))
    assert [one.code for one in advice] == ["repair"] * 3 + ["bag-of-words"]
    assert wanting(advice)
    assert "60 of 300 examples (20%)" in str(advice[0])
    assert "the test part" in str(advice[1])
    few = [replace(found[0], rows=("data:1", "data:2")), replace(found[2], rows=("data:3",))]
    advice = recommend(made({"tfidf": 0.85}, findings=few))
    assert [one.code for one in advice] == ["bag-of-words"]
    assert not wanting(advice)


def test_labels_that_are_doubted_where_a_model_is_surest_are_repaired() -> None:
    survey = made({"tfidf": 0.85})
    doubted = Contradicted(surest=wilson(30, 150), others=wilson(32, 150))
    assert codes(replace(survey, contradicted={"tfidf": doubted})) == ["repair", "bag-of-words"]
    # Hard texts: it is seldom wrong where it is sure.
    hard = Contradicted(surest=wilson(20, 150), others=wilson(60, 150))
    assert codes(replace(survey, contradicted={"tfidf": hard})) == ["bag-of-words"]


def test_rare_labels_are_named_with_what_they_lack() -> None:
    truth = ["a"] * 100 + ["b"] * 100 + ["c"] * 3 + ["d"] * 7
    advice = recommend(made({"tfidf": 0.95}, truth=truth))
    assert [one.code for one in advice] == ["label-more", "bag-of-words"]
    assert "Label more of 'c' (3), 'd' (7): with fewer than 8 examples" in str(advice[0])
    assert "6 more rows" in str(advice[0])


@pytest.mark.parametrize(
    ("rise", "code"), [(0.06, "label-more"), (0.0, "enough-labels"), (0.012, "curve-unsure")]
)
def test_what_more_labels_add_is_said_as_far_as_it_is_known(rise: float, code: str) -> None:
    rng = np.random.default_rng(1)
    # Of a flat curve many examples tell that it is.
    hard = rng.permutation(4000 if not rise else ROWS)
    scores = {
        size: [(hard / len(hard) < 0.6 + rise * doublings).astype(float).tolist()]
        for doublings, size in enumerate((30, 60, 120, 240))
    }
    curve = learning_curve("tfidf", "accuracy", scores, rows=ROWS, chance=0.5)
    survey = replace(made({"tfidf": 0.85}), curves={"tfidf": curve})
    advice = recommend(survey)
    assert [one.code for one in advice] == ["bag-of-words", code]
    assert "600 in place of 300 would add about" in str(advice[1])
    assert ("+2 points take about" in str(advice[1])) == (code == "label-more")


def test_free_answers_are_tuned_for_unless_the_base_model_gives_them() -> None:
    truth = {f"data:{n}": f"answer number {n}" for n in range(40)}
    copied = dict.fromkeys(truth, "answer number 0")
    survey = Survey("generate", (), truth, {"tfidf": copied}, {"samples": 200, "seed": 0}, {}, ())
    (advice,) = recommend(survey)
    assert advice.code == "tune"
    assert "copying the answer of the most similar example (TF-IDF) (token F1 0.6" in str(advice)
    assert [one.code for one in recommend(replace(survey, answers={"base": truth}))] == ["prompt"]
