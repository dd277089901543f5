"""What a model must beat: the commonest class, and a bag of words."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

# Above this share of letters beyond the alphabets that put spaces between words, count
# characters instead.
SPACELESS_SHARE = 0.3


def majority(labels: Sequence[str], count: int) -> list[str]:
    """The commonest of `labels`, `count` times (the first in the alphabet of several)."""
    counts = Counter(labels)
    return [min(counts, key=lambda label: (-counts[label], label))] * count


def tfidf(train: Sequence[str], labels: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Predictions for `texts` of TF-IDF with logistic regression, fitted on `train`.

    Words and pairs of words; characters one to three where the writing has no spaces.
    """
    model = make_pipeline(_vectorizer(train), LogisticRegression(C=10, max_iter=1000))
    model.fit(list(train), list(labels))
    return [str(label) for label in model.predict(list(texts))]


def nearest(train: Sequence[str], answers: Sequence[str], texts: Sequence[str]) -> list[str]:
    """For each of `texts` the answer of the training text that is most like it, by TF-IDF.

    What a tuned model of free text must beat: it copies, and knows nothing.
    """
    vectorizer = _vectorizer(train)
    known = vectorizer.fit_transform(train)
    alike = vectorizer.transform(texts) @ known.T
    return [answers[int(index)] for index in np.asarray(alike.argmax(axis=1)).ravel()]


def _vectorizer(train: Sequence[str]) -> TfidfVectorizer:
    spaceless = _share_spaceless(train) > SPACELESS_SHARE
    grams = (
        {"analyzer": "char", "ngram_range": (1, 3)}
        if spaceless
        else {"ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"}
    )
    return TfidfVectorizer(sublinear_tf=True, **grams)


def _share_spaceless(texts: Sequence[str]) -> float:
    letters = [char for text in texts for char in text if char.isalpha()]
    # Kana, ideographs and Thai lie from U+0E00 on; the alphabets with spaces mostly below.
    spaceless = sum(0x0E00 <= ord(c) <= 0x0E7F or 0x3040 <= ord(c) <= 0x9FFF for c in letters)
    return spaceless / max(1, len(letters))
