"""What a model must beat: the commonest answer, a bag of words, a linear classifier of features."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from kilotune.data.scripts import spaceless_share
from kilotune.data.split import stratifiable

# Above this share of letters beyond the alphabets that put spaces between words, count
# characters instead.
SPACELESS_SHARE = 0.3
# Of the cross-validation behind out-of-fold probabilities.
FOLDS = 5
# Inverse strengths of regularisation to choose from, and that for standardised hidden states.
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
STATES_STRENGTH = 0.01
# Rows that are made compact at most (their products are a matrix of so many squared), and the
# least part of the largest of a matrix's eigenvalues that is no rounding.
MOST_COMPACT, SMALLEST = 2500, 1e-10
Place = TypeVar("Place")
WORD = re.compile(r"(?u)\b\w+\b")


def majority(labels: Sequence[str], count: int) -> list[str]:
    """The commonest of `labels`, `count` times (the first in the alphabet of several)."""
    counts = Counter(labels)
    return [min(counts, key=lambda label: (-counts[label], label))] * count


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """Logistic regression that was fitted: plain arrays, which any program can read.

    `weights` has a row for each of `labels`, of two labels one row alone, and a column for each
    feature; `bias` is of the same rows. Features are taken as (x - `mean`) / `scale`.
    """

    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    mean: NDArray[np.float64] | float = 0.0
    scale: NDArray[np.float64] | float = 1.0

    def probabilities(self, features: Any) -> NDArray[np.float64]:
        """Of each row of `features`, dense or sparse, that of each label."""
        plain = features if isinstance(self.mean, float) else (features - self.mean) / self.scale
        scores = np.asarray(plain @ self.weights.T) + self.bias
        if len(self.labels) == 2:
            scores = np.hstack([np.zeros_like(scores), scores])
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return shares

    def predict(self, features: Any) -> list[str]:
        """The likeliest label of each row."""
        return [self.labels[best] for best in self.probabilities(features).argmax(axis=1)]


@dataclass(frozen=True, slots=True)
class BagOfWords:
    """TF-IDF and logistic regression, fitted."""

    vectorizer: TfidfVectorizer
    classifier: LinearClassifier

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each text."""
        return self.classifier.predict(self.vectorizer.transform(list(texts)))


def fit_bag_of_words(texts: Sequence[str], labels: Sequence[str], *, seed: int) -> BagOfWords:
    """A bag of words fitted to `texts`; rare labels count as much as common ones.

    Its strength is chosen by macro-F1 out of fold. There must be a letter or sign in the texts.
    """
    words = vectorizer(texts)
    return BagOfWords(words, fit_linear(words.fit_transform(texts), labels, STRENGTHS, seed=seed))


def fit_linear(
    features: Any, labels: Sequence[str], strengths: Sequence[float], *, seed: int
) -> LinearClassifier:
    """Balanced logistic regression on `features`, of a row for each label, dense or sparse.

    Its inverse strength of regularisation is the one of `strengths` that is best out of fold.
    """
    if len(set(labels)) == 1:
        return LinearClassifier((labels[0],), np.zeros((1, features.shape[1])), np.zeros(1))
    rows = _Rows.of(features)
    best = _best_strength(rows.compact, labels, strengths, seed)
    fitted = _fitted(rows.compact, labels, best)
    labels_of = tuple(map(str, fitted.classes_))
    return LinearClassifier(labels_of, rows.weights(fitted.coef_), fitted.intercept_)


def best_strength(
    features: Any, labels: Sequence[str], strengths: Sequence[float], *, seed: int
) -> float:
    """The one of `strengths` that `fit_linear` would take."""
    return _best_strength(_Rows.of(features).compact, labels, strengths, seed)


def _best_strength(
    compact: Any, labels: Sequence[str], strengths: Sequence[float], seed: int
) -> float:
    if len(strengths) == 1:
        return strengths[0]
    scores = [_out_of_fold_f1(compact, labels, one, seed) for one in strengths]
    return strengths[int(np.argmax(scores))]


def fit_states(
    choices: Mapping[Place, NDArray[np.float32]], labels: Sequence[str], *, seed: int
) -> tuple[Place, LinearClassifier]:
    """The best of `choices` of features out of fold, by macro-F1, and a classifier of them.

    Each has a row for each label. For hidden states, of which there are more than labels and few
    of one size: they are standardised, and strongly regularised.
    """
    best = best_place(choices, labels, seed=seed)
    standard, mean, scale = _standardised(choices[best])
    plain = fit_linear(standard, labels, (STATES_STRENGTH,), seed=seed)
    return best, replace(plain, mean=mean, scale=scale)


def best_place(
    choices: Mapping[Place, NDArray[np.float32]], labels: Sequence[str], *, seed: int
) -> Place:
    """The one of `choices` that `fit_states` would take."""
    found: dict[Place, float] = {}
    for place, features in choices.items() if len(choices) > 1 else ():
        compact = _Rows.of(_standardised(features)[0]).compact
        found[place] = _out_of_fold_f1(compact, labels, STATES_STRENGTH, seed)
    return max(found, key=found.__getitem__) if found else next(iter(choices))


def _standardised(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Features of mean 0 and deviation 1, and what their means and deviations were."""
    mean, scale = features.mean(axis=0, dtype=float), features.std(axis=0, dtype=float)
    scale[scale == 0] = 1.0
    return (features - mean) / scale, mean, scale


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of features, and the same rows in as many dimensions as there are rows.

    Logistic regression knows rows by their inner products alone, which both have alike: what is
    fitted to the compact ones is the same, and takes a fraction of the time.
    """

    compact: NDArray[np.float64]
    weights: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    @classmethod
    def of(cls, features: Any) -> Self:
        """Rows of dense or sparse features; as they are where there are too many of them."""
        if not features.shape[0] < min(features.shape[1], MOST_COMPACT):
            return cls(features, lambda weights: weights)
        products = features @ features.T
        values, vectors = np.linalg.eigh(products.toarray() if issparse(products) else products)
        kept = values > values[-1] * SMALLEST
        roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
        return cls(
            vectors * roots, lambda weights: np.asarray((weights / roots @ vectors.T) @ features)
        )


def _out_of_fold_f1(features: Any, labels: Sequence[str], strength: float, seed: int) -> float:
    """Macro-F1 of answers out of fold; 0 where there is nothing to learn in a fold."""
    folds = min(FOLDS, max(Counter(labels).values()))
    if folds < 2:
        return 0.0
    truth = np.array(labels, dtype=object)
    said = np.full_like(truth, "")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes rarer than the folds are reported by the checks, with their rows.
        warnings.simplefilter("ignore")
        splits = list(splitter.split(np.zeros(len(truth)), truth))
    for known, held in splits:
        if len(set(truth[known])) > 1:
            said[held] = _fitted(features[known], truth[known].tolist(), strength).predict(
                features[held]
            )
    return float(f1_score(truth, said, average="macro", zero_division=0.0))


def _fitted(features: Any, labels: Sequence[str], strength: float) -> LogisticRegression:
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000, tol=1e-6)
    # Threads get in each other's way where fits are small. That labels can be told apart for sure,
    # which the solver warns of, is as often so as not.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, list(labels))


def out_of_fold(
    texts: Sequence[str], labels: Sequence[str], groups: Sequence[int], *, seed: int
) -> NDArray[np.float64]:
    """Each text's label probabilities by a bag of words that has not seen its group.

    Of shape (texts, labels), the labels in the order of `sorted(set(labels))`. There must be two
    groups at least. A label that is absent where a model learnt has probability 0 there.
    """
    folds = min(FOLDS, len(set(groups)))
    strata = stratifiable(labels, folds)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes rarer than the folds are reported by the checks, with their rows.
        warnings.simplefilter("ignore")
        probabilities: NDArray[np.float64] = cross_val_predict(
            bag_of_words(texts),
            np.array(texts, dtype=object),
            np.array(labels, dtype=object),
            cv=list(splitter.split(np.zeros(len(texts)), strata, groups)),
            method="predict_proba",
        )
    return probabilities


def bag_of_words(texts: Sequence[str]) -> Pipeline:
    """TF-IDF with logistic regression, not fitted, for writing such as that of `texts`."""
    return make_pipeline(vectorizer(texts), LogisticRegression(C=10, max_iter=1000))


def nearest(train: Sequence[str], answers: Sequence[str], texts: Sequence[str]) -> list[str]:
    """For each of `texts` the answer of the training text that is most like it, by TF-IDF.

    What a tuned model of free text must beat: it copies, and knows nothing. Without a letter or
    sign to compare (images alone), the commonest answer.
    """
    return copier(train, answers)(texts)


def copier(train: Sequence[str], answers: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """What `nearest` does for any texts, with those of training looked at once."""
    if blank(train):
        return lambda texts: majority(answers, len(texts))
    vectors = vectorizer(train)
    known = vectors.fit_transform(train)

    def copied(texts: Sequence[str]) -> list[str]:
        alike = vectors.transform(texts) @ known.T
        return [answers[int(index)] for index in np.asarray(alike.argmax(axis=1)).ravel()]

    return copied


def blank(texts: Sequence[str]) -> bool:
    """Whether there is no letter or sign in any of `texts`."""
    return not any(text.strip() for text in texts)


def vectorizer(texts: Sequence[str]) -> TfidfVectorizer:
    """Words and pairs of words; characters one to three where most of the writing has no words."""
    spaceless = spaceless_share("".join(texts)) > SPACELESS_SHARE
    worded = sum(WORD.search(text) is not None for text in texts)
    return _vectorizer(characters=spaceless or 2 * worded <= len(texts))


def restored_vectorizer(
    terms: Sequence[str], idf: NDArray[np.float64], characters: bool
) -> TfidfVectorizer:
    """One that was fitted: its terms in the order of their columns, and the weight of each.

    Raises ValueError where these are not as many as those.
    """
    restored = _vectorizer(characters, vocabulary=list(terms))
    restored.idf_ = idf
    return restored


def _vectorizer(characters: bool, **settings: Any) -> TfidfVectorizer:
    grams = (
        {"analyzer": "char", "ngram_range": (1, 3)}
        if characters
        else {"ngram_range": (1, 2), "token_pattern": WORD.pattern}
    )
    return TfidfVectorizer(sublinear_tf=True, **grams, **settings)
