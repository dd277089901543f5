"""What a model must beat: the commonest class, and a bag of words."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline

from kilotune.data.scripts import spaceless_share
from kilotune.data.split import stratifiable

# Above this share of letters beyond the alphabets that put spaces between words, count
# characters instead.
SPACELESS_SHARE = 0.3
# Of the cross-validation behind out-of-fold probabilities.
FOLDS = 5
WORD = re.compile(r"(?u)\b\w+\b")


def majority(labels: Sequence[str], count: int) -> list[str]:
    """The commonest of `labels`, `count` times (the first in the alphabet of several)."""
    counts = Counter(labels)
    return [min(counts, key=lambda label: (-counts[label], label))] * count


def tfidf(train: Sequence[str], labels: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Predictions for `texts` of TF-IDF with logistic regression, fitted on `train`.

    Without a letter or sign to learn from (images alone), or with one label alone, the commonest.
    """
    if blank(train) or len(set(labels)) == 1:
        return majority(labels, len(texts))
    model = bag_of_words(train)
    model.fit(list(train), list(labels))
    return [str(label) for label in model.predict(list(texts))]


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
    if blank(train):
        return majority(answers, len(texts))
    vectors = vectorizer(train)
    known = vectors.fit_transform(train)
    alike = vectors.transform(texts) @ known.T
    return [answers[int(index)] for index in np.asarray(alike.argmax(axis=1)).ravel()]


def blank(texts: Sequence[str]) -> bool:
    """Whether there is no letter or sign in any of `texts`."""
    return not any(text.strip() for text in texts)


def vectorizer(texts: Sequence[str]) -> TfidfVectorizer:
    """Words and pairs of words; characters one to three where most of the writing has no words."""
    spaceless = spaceless_share("".join(texts)) > SPACELESS_SHARE
    worded = sum(WORD.search(text) is not None for text in texts)
    grams = (
        {"analyzer": "char", "ngram_range": (1, 3)}
        if spaceless or 2 * worded <= len(texts)
        else {"ngram_range": (1, 2), "token_pattern": WORD.pattern}
    )
    return TfidfVectorizer(sublinear_tf=True, **grams)
