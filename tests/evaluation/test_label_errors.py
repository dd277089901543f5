import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from kilotune.evaluation.label_errors import (
    contradicted,
    label_errors,
    labels_doubted,
    suspicious_labels,
)
from tests.support.made import classified

# Two classes. Class 0 is given to the first three: the threshold is (0.9 + 0.7 + 0.2) / 3 = 0.6;
# class 1 to the last three: (0.8 + 0.6 + 0.1) / 3 = 0.5.
GIVEN = [0, 0, 0, 1, 1, 1]
LIKELY = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6], [0.9, 0.1]]


def test_two_classes_by_hand() -> None:
    found = label_errors(GIVEN, LIKELY)
    assert found.thresholds == pytest.approx([0.6, 0.5])
    # Margins: 0.2 - 0.8 = -0.6 for the third, 0.1 - 0.9 = -0.8 for the last.
    assert found.suspicious.tolist() == [5, 2]
    assert found.suggested.tolist() == [0, 1]
    # Each class: two confident as labelled, one as the other, of three.
    assert found.joint == pytest.approx(np.array([[2, 1], [1, 2]]) / 6)


def test_what_reaches_no_threshold_is_not_counted() -> None:
    likely = [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.3, 0.7, 0.0], [0.4, 0.35, 0.25]]
    found = label_errors([0, 0, 1, 1, 0], likely)
    # 0.4 is below (0.9 + 0.8 + 0.4) / 3 = 0.7, and 0.35 below 0.8: the last counts nowhere.
    assert found.thresholds[:2] == pytest.approx([0.7, 0.8])
    assert found.suspicious.tolist() == []
    assert found.joint == pytest.approx(np.diag([0.6, 0.4, 0.0]))


def test_a_class_below_its_threshold_gives_way_to_one_that_reaches_it() -> None:
    # The last is likeliest 0, but 0 reaches its threshold (0.8) nowhere there, and 1 does (0.35).
    likely = [[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.7, 0.3], [0.6, 0.4]]
    found = label_errors([0, 0, 1, 1, 0], likely)
    assert found.thresholds == pytest.approx([2.2 / 3, 0.35])
    assert found.suspicious.tolist() == [4]
    assert found.suggested.tolist() == [1]


def test_the_two_rankings_differ_where_the_rest_is_spread() -> None:
    given = [0, 1, 2, 0, 0]
    likely = [
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
        [0.0, 0.5, 0.5],
        [0.1, 0.9, 0.0],
    ]
    likely[1], likely[2] = [0.1, 0.5, 0.4], [0.1, 0.4, 0.5]
    by_confidence = label_errors(given, likely, ranking="self_confidence")
    by_margin = label_errors(given, likely, ranking="normalized_margin")
    assert by_confidence.suspicious.tolist() == [3, 4]  # 0.0 and 0.1
    assert by_margin.suspicious.tolist() == [4, 3]  # 0.1 - 0.9 and 0.0 - 0.5


def test_known_noise_is_found_and_its_share_estimated() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 1500)
    flipped = rng.random(1500) < 0.1
    given = np.where(flipped, (true + 1) % 3, true)
    # A model that knows the truth, with noise of its own.
    logits = 3.0 * np.eye(3)[true] + rng.normal(0, 1, (1500, 3))
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = label_errors(given, likely)
    hits = flipped[found.suspicious]
    assert hits.sum() / flipped.sum() > 0.8
    assert hits.mean() > 0.75
    assert hits[:75].mean() > 0.95
    assert 1 - np.trace(found.joint) == pytest.approx(0.1, abs=0.04)
    # True classes flow to the next one.
    assert found.joint[1, 0] > 5 * found.joint[0, 1]


def test_the_finding_names_rows_in_rank_order_with_what_they_may_be() -> None:
    given = [*GIVEN, 0, 0, 1, 1]
    likely = [*LIKELY, [0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    rows = classified(*((f"text {i}", "ab"[label]) for i, label in enumerate(given)))
    (finding,) = suspicious_labels(rows, ["a", "b"], likely)
    assert (finding.code, finding.severity) == ("suspicious-label", "note")
    assert finding.rows == ("data:7", "data:4")
    assert "data:7 ('b', or 'a'?), data:4 ('a', or 'b'?)" in finding.message
    assert "agree with 80%" in finding.message
    right = [place for place in range(10) if place not in (2, 5)]
    assert suspicious_labels([rows[i] for i in right], ["a", "b"], [likely[i] for i in right]) == []


@over(st.floats(0.5, 0.95), st.integers(0, 99))
def test_predictions_that_know_nothing_contradict_nothing(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random(300) > share).astype(int)
    labels[:2] = 0, 1
    rows = classified(*((f"text {i}", "ab"[label]) for i, label in enumerate(labels)))
    for likely in (rng.dirichlet((1, 1), 300), np.tile([share, 1 - share], (300, 1))):
        (finding,) = suspicious_labels(rows, ["a", "b"], likely)
        assert (finding.code, finding.severity, finding.rows) == ("labels-not-judged", "note", ())
        agreement = (likely.argmax(axis=1) == labels).mean()
        assert f"agree with {agreement:.0%} of the labels" in finding.message
        assert f"always the commonest with {np.bincount(labels).max() / 300:.0%}" in finding.message


def predictions(noise: float, hard: float, seed: int = 0) -> tuple[list[int], list[list[float]]]:
    """Labels and likelihoods of 600 examples of two classes by a model that knows the truth.

    A share of `noise` labels is wrong whatever the example. Of the share `hard` the model knows
    nothing, and is less sure.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, 600)
    labels = np.where(rng.random(600) < noise, 1 - truth, truth)
    unknown = rng.random(600) < hard
    said = np.where(unknown, rng.integers(0, 2, 600), truth)
    sure = np.where(unknown, rng.uniform(0.5, 0.7, 600), rng.uniform(0.7, 0.9, 600))
    likely = np.column_stack([1 - sure, sure])
    likely[said == 0] = likely[said == 0][:, ::-1]
    return labels.tolist(), likely.tolist()


def test_wrong_labels_contradict_the_surest_predictions_as_often_as_others() -> None:
    noisy = contradicted(*predictions(0.25, 0.0))
    assert noisy is not None
    assert noisy.surest.value == pytest.approx(0.25, abs=0.06)
    assert noisy.others.value == pytest.approx(0.25, abs=0.06)
    assert noisy.alike
    hard = contradicted(*predictions(0.0, 0.5))
    assert hard is not None
    assert hard.surest.value < 0.05
    assert hard.others.value == pytest.approx(0.5, abs=0.07)
    assert not hard.alike
    assert contradicted([0, 1] * 5, [[0.9, 0.1]] * 10) is None


def test_what_the_tuned_model_contradicts_is_listed_in_order_of_suspicion() -> None:
    labels, likely = predictions(0.25, 0.0)
    rows = classified(*((f"text {i}", "ab"[label]) for i, label in enumerate(labels)))
    (finding,) = labels_doubted(rows, ["a", "b"], likely)
    wrong = {row.id for row, label, p in zip(rows, labels, likely, strict=True) if p[label] < 0.5}
    assert set(finding.rows) == wrong
    given = {row.id: p[label] for row, label, p in zip(rows, labels, likely, strict=True)}
    assert [given[row] for row in finding.rows] == sorted(given[row] for row in finding.rows)
    assert "the tuned model's, which was trained on most of them all the same" in finding.message
