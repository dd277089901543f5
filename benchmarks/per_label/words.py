"""Systems without a language model: the commonest answer, a bag of words, a sentence encoder.

Of open answers (JSON, texts) the last two copy that of the nearest training text.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

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


# Numbers of rows to their answers.
Answerer = Callable[[Sequence[int]], list[str]]


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

    def fit(rows: Sequence[int]) -> Answerer:
        words = fit_bag_of_words(
            [job.texts[n] for n in rows], [job.answers[n] for n in rows], seed=job.seed
        )
        return lambda asked: words.predict([every[n] for n in asked])

    every = [*job.texts, *job.asked_texts]
    return classifier(job, fit)


def encoder(job: Job) -> Learnt:
    """Sentence embeddings of all-MiniLM-L6-v2, balanced logistic regression on them."""
    embed = load_embedder(job.encoder)
    known = embed(job.texts).numpy()
    if job.kind != "classify":
        return Learnt(lambda: _nearest(job, known, embed(job.asked_texts).numpy()))
    every = np.concatenate([known, embed(job.asked_texts).numpy()])

    def fit(rows: Sequence[int]) -> Answerer:
        answers = [job.answers[n] for n in rows]
        fitted = fit_linear(every[list(rows)], answers, STRENGTHS, seed=job.seed)
        return lambda asked: fitted.predict(every[list(asked)])

    return classifier(job, fit)


def classifier(
    job: Job, fit: Callable[[Sequence[int]], Callable[[Sequence[int]], list[str]]]
) -> Learnt:
    """What is fitted to rows by their numbers, and what it says of itself.

    Those that are asked are numbered behind those that are learnt from. What it says is what it
    answers out of fold, its settings chosen anew in each.
    """
    count, labels = len(job.answers), np.array(job.answers, dtype=object)
    said = np.full(count, "", dtype=object)
    folds = min(FOLDS, max(Counter(job.answers).values()))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=job.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels rarer than the folds
        splits = list(splitter.split(np.zeros(count), labels))
    for known, held in splits:
        said[held] = fit(known.tolist())(held.tolist())
    answer = fit(range(count))
    return Learnt(
        lambda: answer(range(count, count + len(job.asked))),
        figures(job, job.answers, said.tolist(), job.labels),
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
