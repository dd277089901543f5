from kilotune.evaluate.baselines import majority, tfidf


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
