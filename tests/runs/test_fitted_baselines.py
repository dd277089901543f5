"""Fitted baselines on disk: what is read answers as what was written."""

from pathlib import Path

import numpy as np
import pytest

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import LinearClassifier, fit_bag_of_words
from kilotune.runs.fitted_baselines import (
    ARRAYS,
    FittedBaselines,
    load_baselines,
    save_baselines,
)
from kilotune.runs.record import RunFolder

TEXTS, LABELS = ["a great film", "an awful film"] * 4, ["good", "bad"] * 4
THREE = LinearClassifier(("a", "b", "c"), np.eye(3), np.zeros(3), np.ones(3), np.full(3, 2.0))
PROBED = np.ones(3, dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_what_was_written_is_read_back_and_answers_the_same(folder: RunFolder) -> None:
    words = fit_bag_of_words(TEXTS, LABELS, seed=0)
    shown = (Message("user", "hi"), Message("assistant", "good"))
    saved = FittedBaselines(words, None, ("minilm", PROBED, THREE), (7, "mean", 5, THREE), shown)
    save_baselines(folder, saved)
    found = load_baselines(folder)
    assert found.tfidf is not None
    assert found.tfidf.predict(["awful", "great"]) == ["bad", "good"]
    features = words.vectorizer.transform(TEXTS)
    np.testing.assert_array_equal(
        found.tfidf.classifier.probabilities(found.tfidf.vectorizer.transform(TEXTS)),
        words.classifier.probabilities(features),
    )
    assert found.encoder is not None
    assert found.encoder[0] == "minilm"
    assert found.states is not None
    np.testing.assert_array_equal(found.encoder[1], PROBED)
    assert found.states[:3] == (7, "mean", 5)
    for classifier in (found.encoder[-1], found.states[-1]):
        np.testing.assert_array_equal(
            classifier.probabilities(np.eye(3)), THREE.probabilities(np.eye(3))
        )
    assert found.shown == shown
    assert found.copied is None


def test_texts_that_are_copied_from_are_kept_as_texts(folder: RunFolder) -> None:
    save_baselines(folder, FittedBaselines(copied=(["q"], ["a"]), shown=()))
    found = load_baselines(folder)
    assert (found.copied, found.shown, found.tfidf) == ((["q"], ["a"]), (), None)


def test_a_run_without_them_and_damaged_ones_are_said(folder: RunFolder) -> None:
    with pytest.raises(KilotuneError, match="no baselines were kept"):
        load_baselines(folder)
    save_baselines(folder, FittedBaselines(fit_bag_of_words(TEXTS, LABELS, seed=0)))
    whole = (folder / ARRAYS).read_bytes()
    for damaged in (b"", whole[:-9], whole.replace(b"tfidf.bias", b"tfidf.bits")):
        (folder / ARRAYS).write_bytes(damaged)
        with pytest.raises(KilotuneError, match=r"baselines\.safetensors is damaged"):
            load_baselines(folder)
    (folder / ARRAYS).unlink()
    with pytest.raises(KilotuneError, match="damaged"):
        load_baselines(folder)
