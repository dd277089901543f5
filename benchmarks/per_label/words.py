"""Systems without a language model: the commonest answer, a bag of words, a sentence encoder.

Of open answers (JSON, texts) the last two copy that of the nearest training text.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits

from benchmarks.per_label.worker import Job, Learnt
from kilotune.data.split import stratifiable
from kilotune.evaluation.baselines import FOLDS, majority, nearest, vectorizer
from kilotune.evaluation.judgement import judge_system

SAMPLES = 2000
STRENGTHS = (0.01, 0.1, 1, 10, 100)


def commonest(job: Job) -> Learnt:
    """The commonest answer, always; what it says of itself is its share of the training rows."""
    said = majority(job.answers, len(job.answers))
    return Learnt(
        lambda: majority(job.answers, len(job.asked)), figures(job, job.answers, said, job.labels)
    )


def tfidf(job: Job) -> Learnt:
    """Words and pairs of them, balanced logistic regression, its strength by cross-validation."""
    if job.kind != "classify":
        return Learnt(lambda: nearest(job.texts, job.answers, job.asked_texts))
    model = make_pipeline(vectorizer(job.texts), regression())
    return classifier(job, tuned(job, model), list(job.texts), lambda: list(job.asked_texts))


def encoder(job: Job) -> Learnt:
    """Sentence embeddings of all-MiniLM-L6-v2, balanced logistic regression on them."""
    known = embeddings(job.encoder, job.texts)
    if job.kind != "classify":
        return Learnt(lambda: _nearest(job, known, embeddings(job.encoder, job.asked_texts)))
    model = tuned(job, make_pipeline(regression()))
    return classifier(job, model, known, lambda: embeddings(job.encoder, job.asked_texts))


def regression() -> LogisticRegression:
    """What learns from features; rare labels count as much as common ones."""
    return LogisticRegression(class_weight="balanced", max_iter=2000)


def tuned(job: Job, model: Pipeline) -> GridSearchCV:
    """The same model, not fitted, its strength by cross-validation."""
    grid = {"logisticregression__C": STRENGTHS}
    return GridSearchCV(model, grid, scoring="f1_macro", cv=Folds(job.seed))


@dataclass(frozen=True)
class Folds:
    """Folds by label, drawn by `seed`; labels that are rarer than the folds count as one."""

    seed: int

    def get_n_splits(self, *_: object, **__: object) -> int:
        """How many there are."""
        return FOLDS

    def split(
        self, features: object, labels: Sequence[str], groups: object = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The numbers of the rows that each learns from, and of those it answers."""
        strata = stratifiable(list(labels), FOLDS)
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=self.seed)
        return splitter.split(np.zeros(len(strata)), strata)


def classifier(job: Job, model: GridSearchCV, known: object, asked: Callable[[], object]) -> Learnt:
    """A model fitted on features of the training rows, `known`, and what it says of itself.

    That is what it answers out of fold, its settings chosen anew in each.
    """
    labels = np.array(job.answers, dtype=object)
    with at_work():
        said = cross_val_predict(model, known, labels, cv=Folds(job.seed))
        model.fit(known, labels)
    return Learnt(
        lambda: [str(label) for label in model.predict(asked())],
        figures(job, job.answers, said.tolist(), job.labels),
    )


@contextmanager
def at_work() -> Iterator[None]:
    """Many small fits: one thread, since more get in each other's way; rare labels unmentioned."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # labels rarer than the folds
        yield


def figures(
    job: Job, truth: Sequence[str], said: Sequence[str], labels: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """The kind's two figures with intervals, as a system would report them."""
    settings = {"samples": SAMPLES, "seed": job.seed}
    found = judge_system("own", job.kind, truth, said, labels, settings=settings).figures
    return {name: (f.value, f.low, f.high) for name, f in found.items() if f.value is not None}


def embeddings(folder: str, texts: Sequence[str], batch: int = 32) -> np.ndarray:
    """Mean-pooled, of length one, as the encoder's own settings say."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer(
            [texts[row] for row in rows],
            padding=True, truncation=True, max_length=256, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found


def _nearest(job: Job, known: np.ndarray, asked: np.ndarray) -> list[str]:
    return [job.answers[index] for index in (asked @ known.T).argmax(axis=1)]
