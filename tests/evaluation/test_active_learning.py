"""What is chosen to be labelled: the least sure, and unlike each other."""

import numpy as np
import pytest

from kilotune.evaluation.active_learning import SHORTLIST, diverse, entropy, margin, most_uncertain


def test_margin_and_entropy_are_one_where_nothing_is_known_and_nought_where_all_is() -> None:
    probabilities = [[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.6, 0.1, 0.2, 0.1]]
    assert margin(probabilities) == pytest.approx([1.0, 0.0, 1.0, 0.6])
    assert entropy(probabilities)[:3] == pytest.approx([1.0, 0.0, 0.5])


def test_the_most_uncertain_come_first_and_of_equals_the_first() -> None:
    assert most_uncertain([0.2, 0.9, 0.2, 0.5], 3) == [1, 3, 0]
    assert most_uncertain([0.2], 3) == [0]


TOPICS = ("oil barrel tanker crude", "wheat harvest grain maize", "dollar currency yen bank")


def test_the_diverse_are_of_every_kind_where_the_most_uncertain_are_of_one() -> None:
    words = [TOPICS[0]] * 12 + [TOPICS[1]] * 3 + [TOPICS[2]] * 3
    texts = [f"{text} {'x' * (1 + i % 5)}" for i, text in enumerate(words)]
    uncertainty = [0.9] * 12 + [0.6] * 6
    assert set(most_uncertain(uncertainty, 3)) == {0, 1, 2}
    chosen = diverse(texts, uncertainty, 3, seed=0)
    assert {words[index] for index in chosen} == set(TOPICS)
    assert sorted(chosen.values()) == [3, 3, 12]
    assert words[next(iter(chosen))] == TOPICS[0]  # the most uncertain stays first
    assert chosen == diverse(texts, uncertainty, 3, seed=0)


def test_nothing_is_chosen_beyond_the_shortlist() -> None:
    rng = np.random.default_rng(0)
    texts = [f"word{i} other{i % 7}" for i in range(100)]
    uncertainty = rng.random(100)
    chosen = diverse(texts, uncertainty, 4, seed=0)
    assert len(chosen) == 4
    assert set(chosen) <= set(most_uncertain(uncertainty, SHORTLIST * 4))


def test_as_many_as_asked_for_are_chosen_where_texts_are_equal_or_empty() -> None:
    uncertainty = np.linspace(1, 0, 30)
    assert len(diverse(["same words"] * 30, uncertainty, 5, seed=0)) == 5
    assert list(diverse([""] * 30, uncertainty, 5, seed=0)) == [0, 1, 2, 3, 4]
    assert len(diverse(["a", "b"], [0.1, 0.2], 5, seed=0)) == 2
