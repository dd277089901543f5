import numpy as np
import pytest

from kilotune.evaluation.baselines import majority, nearest, out_of_fold, tfidf


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
    assert tfidf(["", " ", ""], ["a", "b", "b"], ["x"]) == ["b"]
