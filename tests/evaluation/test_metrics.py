import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from kilotune.evaluation.metrics import NO_LABEL, macro_f1, macro_f1_scores, parse_label, per_class


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ("“ＰＯＳＩＴＩＶＥ”", "positive"),
        ("The answer is: positive!", "positive"),
        ("not positive", "not positive"),
        ("It is not positive, I think", "not positive"),
        ("positive or negative", NO_LABEL),
        ("positively", NO_LABEL),
        ("", NO_LABEL),
        ("I cannot say", NO_LABEL),
    ],
)
def test_answers_to_labels(answer: str, expected: str) -> None:
    assert parse_label(answer, ["positive", "negative", "not positive"]) == expected


def test_labels_of_digits_and_signs() -> None:
    assert parse_label("Label: 10", ["1", "10"]) == "10"
    assert parse_label("-1", ["-1", "1"]) == "-1"
    assert parse_label("?", ["!", "?"]) == "?"
    assert parse_label("", ["!", "?"]) == NO_LABEL


def test_chinese_labels_stand_without_spaces() -> None:
    assert parse_label("这是正面的。", ["正面", "负面"]) == "正面"
    assert parse_label("正面或负面", ["正面", "负面"]) == NO_LABEL


def test_macro_f1_against_its_definition() -> None:
    references = ["a", "a", "a", "b", "b", "c"]
    predictions = ["a", "a", "b", "b", NO_LABEL, "a"]
    # a: tp 2, fp 1, fn 1; b: tp 1, fp 1, fn 1; c: tp 0.
    expected = (2 * 2 / 6 + 2 * 1 / 4 + 0) / 3
    assert macro_f1(references, predictions, ["a", "b", "c"]) == pytest.approx(expected)
    # A class that is neither there nor named says nothing.
    assert macro_f1(references, predictions, ["a", "b", "c", "d"]) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_macro_f1_equals_scikit_learns_over_the_classes_met(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [r for r, _ in pairs], [p for _, p in pairs]
    theirs = f1_score(references, predictions, average="macro", zero_division=0)
    assert macro_f1(references, predictions, ["a", "b", "c"]) == pytest.approx(theirs)


def test_per_class_figures() -> None:
    rows = per_class(["a", "a", "b"], ["a", NO_LABEL, "a"], ["a", "b"])
    assert [(r.label, r.precision, r.recall, r.f1, r.support) for r in rows] == [
        ("a", 0.5, 0.5, 0.5, 2),
        ("b", 0.0, 0.0, 0.0, 1),
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1))
def test_the_mean_of_macro_f1_scores_is_macro_f1(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [r for r, _ in pairs], [p for _, p in pairs]
    scores = macro_f1_scores(references, predictions, ["a", "b", "c"])
    expected = macro_f1(references, predictions, ["a", "b", "c"])
    assert sum(scores) / len(scores) == pytest.approx(expected)


def test_macro_f1_scores_spread_as_leaving_each_example_out_does() -> None:
    rng = np.random.default_rng(0)
    references = rng.choice(["a", "b"], 400, p=[0.8, 0.2]).tolist()
    predictions = [r if rng.random() < 0.8 else "a" for r in references]
    scores = np.array(macro_f1_scores(references, predictions, ["a", "b"]))
    left_out = [
        macro_f1(references[:i] + references[i + 1 :], predictions[:i] + predictions[i + 1 :], "ab")
        for i in range(400)
    ]
    jackknife = (399 * np.var(left_out)) ** 0.5
    assert scores.std() / 400**0.5 == pytest.approx(jackknife, rel=0.01)
