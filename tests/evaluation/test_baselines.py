import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kilotune.evaluation import baselines
from kilotune.evaluation.baselines import (
    STRENGTHS,
    LinearClassifier,
    fit_bag_of_words,
    fit_linear,
    fit_states,
    majority,
    nearest,
    out_of_fold,
)


def tfidf(train: list[str], labels: list[str], texts: list[str]) -> list[str]:
    return fit_bag_of_words(train, labels, seed=0).predict(texts)


def test_majority_is_the_commonest_and_the_first_in_the_alphabet_of_several() -> None:
    assert majority(["b", "a", "b"], 2) == ["b", "b"]
    assert majority(["b", "a"], 1) == ["a"]


def test_a_bag_of_words_learns_words() -> None:
    texts = ["a great film", "great acting", "an awful film", "awful acting"] * 3
    labels = ["good", "good", "bad", "bad"] * 3
    assert tfidf(texts, labels, ["great", "awful"]) == ["good", "bad"]


def test_a_bag_of_characters_learns_chinese() -> None:
    texts = ["这部电影很好看", "演员很好", "这部电影很糟糕", "演员糟糕"] * 3
    labels = ["good", "good", "bad", "bad"] * 3
    assert tfidf(texts, labels, ["真的很好", "真糟糕"]) == ["good", "bad"]


def test_out_of_fold_probabilities_never_see_their_group() -> None:
    texts = ["great film", "awful film", "great cast", "awful cast", "odd one", "odd one"] * 5
    labels = ["good", "bad", "good", "bad", "good", "bad"] * 5
    # Every odd text is in one group, so whoever is asked about it has never seen the word.
    groups = [0 if text == "odd one" else 1 + index for index, text in enumerate(texts)]
    likely = out_of_fold(texts, labels, groups, seed=0)
    assert likely.shape == (30, 2)
    assert likely.sum(axis=1) == pytest.approx(np.ones(30))
    columns = dict(zip(texts, likely[:, sorted(set(labels)).index("good")], strict=True))
    assert columns["great cast"] > 0.8
    assert columns["awful cast"] < 0.2
    assert 0.4 < columns["odd one"] < 0.6


def test_the_nearest_text_lends_its_answer() -> None:
    answers = ["red", "blue"]
    assert nearest(["a cat sat", "one dog ran"], answers, ["the dog", "my cat"]) == ["blue", "red"]


def test_texts_without_words_are_compared_by_their_signs() -> None:
    texts, answers = ["?? ?", "!!! !", "?"], ["ask", "shout", "ask"]
    assert nearest(texts, answers, ["!!", "???"]) == ["shout", "ask"]
    assert tfidf(texts * 4, answers * 4, ["!!", "???"]) == ["shout", "ask"]
    probabilities = out_of_fold([*texts, "word"] * 4, [*answers, "ask"] * 4, range(16), seed=0)
    assert probabilities.shape == (16, 2)


def test_without_any_text_the_commonest_answer_is_all_there_is() -> None:
    assert nearest(["", " "], ["b", "b"], ["x", ""]) == ["b", "b"]


def made(rows: int, width: int, labels: int) -> tuple[np.ndarray, list[str]]:
    """Features of which the first few tell labels that are not equally frequent."""
    rng = np.random.default_rng(3)
    names = [f"label {int(n)}" for n in np.minimum(rng.geometric(0.5, rows) - 1, labels - 1)]
    features = rng.normal(size=(rows, width))
    for row, name in enumerate(names):
        features[row, int(name.split()[1])] += 2.0
    return features, names


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_fitted_in_as_many_dimensions_as_rows_is_what_all_features_give(
    labels: int, sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, names = made(60, 200, labels)
    asked, _ = made(40, 200, labels)
    given = csr_matrix(features) if sparse else features
    compact = fit_linear(given, names, (1.0,), seed=0)
    plain = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10000, tol=1e-8)
    plain.fit(features, names)
    assert compact.labels == tuple(plain.classes_)
    np.testing.assert_allclose(compact.probabilities(asked), plain.predict_proba(asked), atol=2e-3)
    # The same where rows are taken as they are, sparse or not.
    monkeypatch.setattr(baselines, "MOST_COMPACT", 0)
    as_they_are = fit_linear(given, names, (1.0,), seed=0)
    np.testing.assert_allclose(
        as_they_are.probabilities(asked), compact.probabilities(asked), atol=2e-3
    )


def test_the_strength_is_the_one_that_is_best_out_of_fold() -> None:
    features, names = made(80, 120, 3)
    scores = [baselines._out_of_fold_f1(features, names, one, seed=5) for one in STRENGTHS]
    best = STRENGTHS[int(np.argmax(scores))]
    chosen = fit_linear(features, names, STRENGTHS, seed=5)
    alone = fit_linear(features, names, (best,), seed=5)
    np.testing.assert_array_equal(chosen.weights, alone.weights)
    assert len(set(scores)) > 1


def test_of_hidden_states_those_are_taken_that_tell_labels_apart() -> None:
    told, names = made(60, 20, 2)
    noise = np.random.default_rng(0).normal(size=told.shape)
    place, classifier = fit_states({"noise": noise, "told": told * 50 + 7}, names, seed=0)
    assert place == "told"
    said = classifier.predict(told * 50 + 7)
    assert sum(one == name for one, name in zip(said, names, strict=True)) > 50


def test_labels_that_are_one_or_rarer_than_folds_are_learnt_all_the_same() -> None:
    one = fit_bag_of_words(["a b", "c d"], ["x", "x"], seed=0)
    assert one.predict(["anything"]) == ["x"]
    assert one.classifier.probabilities(one.vectorizer.transform(["a"])).tolist() == [[1.0]]
    each = fit_bag_of_words(["red ball", "blue box", "green tree"], ["r", "b", "g"], seed=0)
    assert each.predict(["a blue thing", "red"]) == ["b", "r"]
    rare = fit_bag_of_words(["good film"] * 8 + ["odd thing"], ["g"] * 8 + ["o"], seed=0)
    assert rare.predict(["good", "odd"]) == ["g", "o"]


def test_probabilities_are_those_of_logistic_regression() -> None:
    two = LinearClassifier(("a", "b"), np.array([[1.0]]), np.array([0.5]))
    assert two.probabilities(np.array([[1.0]]))[0, 1] == pytest.approx(1 / (1 + math.exp(-1.5)))
    scaled = LinearClassifier(
        ("a", "b"), np.array([[2.0]]), np.zeros(1), np.ones(1), np.ones(1) * 2
    )
    assert scaled.probabilities(np.array([[2.0]]))[0, 1] == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_vectorizer_is_restored_by_its_terms_and_their_weights() -> None:
    texts = ["这部电影很好看", "a great film", "an awful film"]
    for written in (texts[:1], texts[1:]):
        fitted: TfidfVectorizer = baselines.vectorizer(written).fit(written)
        characters = fitted.analyzer == "char"
        again = baselines.restored_vectorizer(
            fitted.get_feature_names_out().tolist(), fitted.idf_, characters
        )
        difference = again.transform(texts) - fitted.transform(texts)
        assert abs(difference).max() == 0
