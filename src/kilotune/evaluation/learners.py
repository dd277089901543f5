"""The simple systems that learn, asked out of fold: of all that is known, and of parts of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, references
from kilotune.data.folds import Fold
from kilotune.evaluation.baselines import (
    STRENGTHS,
    LinearClassifier,
    best_place,
    best_strength,
    blank,
    fit_linear,
    fit_states,
    majority,
    vectorizer,
)

# What can be answered, and how much speaks for each of it: shape (examples asked, answers).
Likely = tuple[Sequence[str], NDArray[np.float64]]
# What was learnt, asked.
Asked = Callable[[Sequence[Example]], Likely]
# Parts of what a fold has to learn from: from the largest on, choices are kept.
SHARES = (1.0, 0.5, 0.25, 0.125)
# Of fewer examples nothing is learnt that a curve could begin with.
LEAST_LEARNT = 8


@dataclass(frozen=True, slots=True)
class Learner:
    """A system that learns from labelled examples.

    `choose` makes of them what takes long to find out (a strength, a layer), which fewer examples
    do not choose much otherwise; `learn` takes it.
    """

    choose: Callable[[Sequence[Example]], Any]
    learn: Callable[[Any, Sequence[Example]], Asked]


def of_words(seed: int) -> Learner:
    """A bag of words (TF-IDF, logistic regression)."""

    def fit(texts: Sequence[str]) -> tuple[Any, Any]:
        words = vectorizer(texts)
        return words, words.fit_transform(texts)

    def choose(known: Sequence[Example]) -> float | None:
        texts = [example.text for example in known]
        if blank(texts):
            return None
        return best_strength(fit(texts)[1], references(known), STRENGTHS, seed=seed)

    def learn(strength: float | None, known: Sequence[Example]) -> Asked:
        texts = [example.text for example in known]
        if strength is None or blank(texts):
            return lambda asked: (majority(references(known), 1), np.ones((len(asked), 1)))
        words, features = fit(texts)
        classifier = fit_linear(features, references(known), (strength,), seed=seed)
        return _asked(classifier, lambda asked: words.transform([e.text for e in asked]))

    return Learner(choose, learn)


def of_vectors(vectors: Mapping[str, NDArray[np.float32]], seed: int) -> Learner:
    """Logistic regression on `vectors` of the examples, by their ids."""

    def features(examples: Sequence[Example]) -> NDArray[np.float32]:
        return np.stack([vectors[example.id] for example in examples])

    def choose(known: Sequence[Example]) -> float:
        return best_strength(features(known), references(known), STRENGTHS, seed=seed)

    def learn(strength: float, known: Sequence[Example]) -> Asked:
        classifier = fit_linear(features(known), references(known), (strength,), seed=seed)
        return _asked(classifier, features)

    return Learner(choose, learn)


def of_states(states: Mapping[str, Mapping[Any, NDArray[np.float32]]], seed: int) -> Learner:
    """Logistic regression on hidden `states`, of each example by where they were taken."""

    def features(place: Any, examples: Sequence[Example]) -> NDArray[np.float32]:
        return np.stack([states[example.id][place] for example in examples])

    def choose(known: Sequence[Example]) -> Any:
        choices = {place: features(place, known) for place in states[known[0].id]}
        return best_place(choices, references(known), seed=seed)

    def learn(place: Any, known: Sequence[Example]) -> Asked:
        _, classifier = fit_states({place: features(place, known)}, references(known), seed=seed)
        return _asked(classifier, lambda asked: features(place, asked))

    return Learner(choose, learn)


def of_nearest() -> Learner:
    """The answer of the most similar example, of open tasks."""

    def learn(_: None, known: Sequence[Example]) -> Asked:
        texts, answers = [example.text for example in known], references(known)
        if blank(texts):
            return lambda asked: (majority(answers, 1), np.ones((len(asked), 1)))
        words = vectorizer(texts)
        rows = words.fit_transform(texts)
        return lambda asked: (
            answers,
            (words.transform([example.text for example in asked]) @ rows.T).toarray(),
        )

    return Learner(lambda known: None, learn)


def _asked(classifier: LinearClassifier, features: Callable[[Sequence[Example]], Any]) -> Asked:
    return lambda asked: (classifier.labels, classifier.probabilities(features(asked)))


def likeliest(likely: Likely) -> list[str]:
    """The answer to each example for which most speaks."""
    answers, much = likely
    return [answers[best] for best in much.argmax(axis=1)]


def aligned(likely: Likely, labels: Sequence[str]) -> NDArray[np.float64]:
    """The probabilities in the order of `labels`; 0 of those that were not met in learning."""
    known, much = likely
    columns = [list(labels).index(label) for label in known]
    found = np.zeros((len(much), len(labels)))
    found[:, columns] = much
    return found


@dataclass(frozen=True, slots=True)
class Round:
    """One cross-validation: each example's answer, by how many were learnt from, by its id.

    `likely` are the probabilities of closed labels by what learnt from most.
    """

    answers: dict[int, dict[str, str]]
    likely: dict[str, NDArray[np.float64]]


def curve_sizes(rounds: Sequence[Sequence[Fold]]) -> list[int]:
    """How many examples are learnt from, the most first: all of a fold's, and parts of them."""
    most = min(len(fold.train) for folds in rounds for fold in folds)
    parts = [size for share in SHARES if (size := round(share * most)) >= LEAST_LEARNT]
    return parts or [most]


def ask_round(
    learner: Learner,
    folds: Sequence[Fold],
    labels: Sequence[str],
    sizes: Sequence[int],
    rng: np.random.Generator,
) -> Round:
    """Ask each fold's examples of what was learnt from the others, and from parts of them.

    Parts are drawn by `rng`, smaller ones out of larger ones; of the first of `sizes` all that a
    fold has is learnt from. Without `labels`, as of open tasks, no probabilities are kept.
    """
    found = Round({size: {} for size in sizes}, {})
    for fold in folds:
        known = [fold.train[place] for place in rng.permutation(len(fold.train))]
        chosen = learner.choose(known)
        ids = [example.id for example in fold.validation]
        for size in sizes:
            part = known if size == sizes[0] else known[:size]
            likely = learner.learn(chosen, part)(fold.validation)
            found.answers[size].update(zip(ids, likeliest(likely), strict=True))
            if labels and size == sizes[0]:
                found.likely.update(zip(ids, aligned(likely, labels), strict=True))
    return found
