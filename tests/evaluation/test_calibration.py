import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from kilotune.evaluation.calibration import calibration, calibration_error
from kilotune.evaluation.evidence import Unavailable
from kilotune.evaluation.label_errors import contradicted

LABELS = ["a", "b", "c"]


def test_calibration_error_against_its_definition() -> None:
    sure = np.array([0.95, 0.91, 0.65, 0.62, 0.68, 1.0])
    right = np.array([1, 0, 1, 1, 0, 1.0])
    # Bins (0.9, 1]: 3 examples, 2 right, mean 0.9533; (0.6, 0.7]: 3, 2 right, mean 0.65.
    expected = (3 * abs(2 / 3 - 2.86 / 3) + 3 * abs(2 / 3 - 0.65)) / 6
    assert calibration_error(sure, right) == pytest.approx(expected)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0


def test_figures_bins_and_disagreement() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 80)
    truth = [LABELS[rng.choice(3, p=row)] for row in probabilities]
    likeliest = [LABELS[i] for i in probabilities.argmax(axis=1)]
    answered = ["", "b" if likeliest[1] != "b" else "c", *likeliest[2:]]
    ids = [f"test:{i}" for i in range(80)]
    found = calibration(probabilities, truth, answered, LABELS, ids, samples=300, seed=0)
    theirs = brier_score_loss(truth, probabilities, labels=LABELS, scale_by_half=False)
    assert found.brier.value == pytest.approx(theirs)
    assert found.accuracy.value == pytest.approx(np.mean(np.array(truth) == likeliest))
    assert sum(bin.examples for bin in found.bins) == 80
    gaps = [bin.examples * abs(bin.accuracy - bin.confidence) for bin in found.bins]
    assert found.ece.value == pytest.approx(sum(gaps) / 80)
    assert found.disagreeing == ("test:0", "test:1")
    assert found.findings() == []
    wrong = [LABELS[(LABELS.index(label) + 1) % 3] for label in likeliest]
    (finding,) = calibration(
        probabilities, truth, wrong, LABELS, ids, samples=20, seed=0
    ).findings()
    assert (finding.code, len(finding.rows)) == ("scores-disagree", 80)


def test_of_probabilities_that_are_not_finite_there_is_no_figure() -> None:
    probabilities = np.full((20, 3), 1 / 3)
    probabilities[4, 1] = np.nan
    ids = [f"test:{i}" for i in range(20)]
    found = calibration(probabilities, ["a"] * 20, ["b"] * 20, LABELS, ids, samples=20, seed=0)
    why = "the model's label probabilities are not finite in 1 of 20 examples"
    assert found.accuracy == found.ece == found.brier == Unavailable(why)
    assert (found.bins, found.disagreeing, found.findings()) == ((), (), [])
    assert contradicted([0] * 20, probabilities) is None
