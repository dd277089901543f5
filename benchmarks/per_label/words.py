"""Systems without a language model: the commonest answer, a bag of words, a sentence encoder.

Of open answers (JSON, texts) the last two copy that of the nearest training text.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from benchmarks.per_label.worker import Job, Learnt
from kilotune.evaluation.baselines import (
    FOLDS,
    STRENGTHS,
    fit_bag_of_words,
    fit_linear,
    majority,
    nearest,
)
from kilotune.evaluation.judgement import judge_system
from kilotune.generation.embedding import load_embedder

SAMPLES = 2000


# Features of rows to their answers.
Answerer = Callable[[Any], list[str]]


@dataclass(frozen=True, slots=True)
class Features:
    """What a classifier knows of the rows it learns from and of those it is asked, when it asks.

    `part` takes those of some rows, by their numbers, out of the first.
    """

    known: Callable[[], Any]
    asked: Callable[[], Any]
    part: Callable[[Any, Sequence[int]], Any] = lambda features, rows: features[list(rows)]


def commonest(job: Job) -> Learnt:
    """The commonest answer, always; what it says of itself is its share of the training rows."""
    said = majority(job.answers, len(job.answers))
    return Learnt(
        lambda: majority(job.answers, len(job.asked)), figures(job, job.answers, said, job.labels)
    )


def tfidf(job: Job) -> Learnt:
    """kilotune's own bag of words: balanced logistic regression, its strength out of fold."""
    if job.kind != "classify":
        return Learnt(lambda: nearest(job.texts, job.answers, job.asked_texts))

    def fit(texts: Sequence[str], answers: Sequence[str]) -> Answerer:
        return fit_bag_of_words(list(texts), answers, seed=job.seed).predict

    texts = Features(
        lambda: np.array(job.texts, dtype=object), lambda: np.array(job.asked_texts, dtype=object)
    )
    return classifier(job, texts, fit)


def encoder(job: Job) -> Learnt:
    """Sentence embeddings of all-MiniLM-L6-v2, balanced logistic regression on them."""
    embed = load_embedder(job.encoder)
    if job.kind != "classify":
        known = embed(job.texts).numpy()
        return Learnt(lambda: _nearest(job, known, embed(job.asked_texts).numpy()))

    def fit(vectors: np.ndarray, answers: Sequence[str]) -> Answerer:
        return fit_linear(vectors, answers, STRENGTHS, seed=job.seed).predict

    vectors = Features(lambda: embed(job.texts).numpy(), lambda: embed(job.asked_texts).numpy())
    return classifier(job, vectors, fit)


def classifier(
    job: Job, features: Features, fit: Callable[[Any, Sequence[str]], Answerer]
) -> Learnt:
    """What is fitted to features, the seconds that took, and what it says of itself.

    That is what it answers out of fold, its settings chosen anew in each; its seconds do not count.
    """
    start = time.perf_counter()
    known = features.known()
    answer = fit(known, job.answers)
    seconds = time.perf_counter() - start
    labels = np.array(job.answers, dtype=object)
    said = np.full(len(labels), "", dtype=object)
    folds = min(FOLDS, max(Counter(job.answers).values()))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=job.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels rarer than the folds
        splits = list(splitter.split(np.zeros(len(labels)), labels))
    for rows, held in splits:
        fold = fit(features.part(known, rows), labels[rows].tolist())
        said[held] = fold(features.part(known, held))
    return Learnt(
        lambda: answer(features.asked()),
        figures(job, job.answers, said.tolist(), job.labels),
        seconds,
    )


def figures(
    job: Job, truth: Sequence[str], said: Sequence[str], labels: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """The kind's two figures with intervals, as a system would report them."""
    settings = {"samples": SAMPLES, "seed": job.seed}
    found = judge_system("own", job.kind, truth, said, labels, settings=settings).figures
    return {name: (f.value, f.low, f.high) for name, f in found.items() if f.value is not None}


def _nearest(job: Job, known: np.ndarray, asked: np.ndarray) -> list[str]:
    return [job.answers[index] for index in (asked @ known.T).argmax(axis=1)]
