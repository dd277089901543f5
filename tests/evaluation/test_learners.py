"""Systems that learn, asked out of fold and of parts of what is known."""

import numpy as np
import pytest

from kilotune.data.folds import make_folds
from kilotune.evaluation.baselines import STRENGTHS, fit_bag_of_words, fit_linear, fit_states
from kilotune.evaluation.learners import (
    Learner,
    aligned,
    ask_round,
    curve_sizes,
    likeliest,
    of_nearest,
    of_states,
    of_vectors,
    of_words,
)
from tests.support.made import answered, classified, sentences

LABELS = ("bad", "good")
WORDS = {"bad": "dreadful", "good": "splendid"}
EXAMPLES = classified(
    *((f"{text} {WORDS[LABELS[n % 2]]}", LABELS[n % 2]) for n, text in enumerate(sentences(60)))
)
REFERENCES = [str(example.label) for example in EXAMPLES]
VECTORS = {
    example.id: np.random.default_rng(n).normal(size=8).astype(np.float32) + n % 2
    for n, example in enumerate(EXAMPLES)
}


def answers(learner: Learner) -> list[str]:
    known, asked = EXAMPLES[:40], EXAMPLES[40:]
    return likeliest(learner.learn(learner.choose(known), known)(asked))


def test_they_answer_as_the_baselines_of_a_run_do() -> None:
    texts = [example.text for example in EXAMPLES]
    words = fit_bag_of_words(texts[:40], REFERENCES[:40], seed=0)
    assert answers(of_words(0)) == words.predict(texts[40:])
    features = np.stack(list(VECTORS.values()))
    linear = fit_linear(features[:40], REFERENCES[:40], STRENGTHS, seed=0)
    assert answers(of_vectors(VECTORS, 0)) == linear.predict(features[40:])
    states = {id: {"low": np.zeros(4, np.float32), "high": one} for id, one in VECTORS.items()}
    choices = {"low": np.zeros((40, 4), np.float32), "high": features[:40]}
    place, hidden = fit_states(choices, REFERENCES[:40], seed=0)
    assert place == "high"
    assert answers(of_states(states, 0)) == hidden.predict(features[40:])


def test_each_is_answered_once_by_what_learnt_from_others_in_every_size() -> None:
    seen: list[set[str]] = []

    def learn(_: None, known):  # type: ignore[no-untyped-def]
        ids = {example.id for example in known}
        seen.append(ids)

        def asked(examples):  # type: ignore[no-untyped-def]
            assert not ids & {example.id for example in examples}
            return LABELS, np.tile([0.4, 0.6], (len(examples), 1))

        return asked

    folds = make_folds(EXAMPLES, 5, 0)
    sizes = curve_sizes([folds])
    assert sizes == [48, 24, 12]
    rng = np.random.default_rng(0)
    found = ask_round(Learner(lambda known: None, learn), folds, LABELS, sizes, rng)
    assert [len(found.answers[size]) for size in sizes] == [60, 60, 60]
    assert set(found.answers[12].values()) == {"good"}
    assert found.likely[EXAMPLES[0].id].tolist() == [0.4, 0.6]
    for largest, half, quarter in zip(seen[::3], seen[1::3], seen[2::3], strict=True):
        assert quarter < half < largest
        assert (len(quarter), len(half), len(largest)) == (12, 24, 48)


def test_the_nearest_lends_its_answer_and_without_texts_the_commonest_is_all() -> None:
    known = answered(("red round apple", "fruit"), ("loud blue car", "thing"))
    learn = of_nearest().learn
    assert likeliest(learn(None, known)(answered(("a blue car", "?")))) == ["thing"]
    blank = classified(("", "a"), ("", "b"), ("", "b"))
    for learner in (of_nearest(), of_words(0)):
        assert likeliest(learner.learn(learner.choose(blank), blank)(blank)) == ["b"] * 3


def test_probabilities_stand_in_the_order_of_all_labels() -> None:
    found = aligned((("c", "a"), np.array([[0.9, 0.1]])), ("a", "b", "c"))
    assert found.tolist() == [[pytest.approx(0.1), 0.0, pytest.approx(0.9)]]
