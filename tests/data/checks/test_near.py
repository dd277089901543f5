from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilotune.data.checks.near import THRESHOLD, near_pairs
from kilotune.data.checks.shingles import WORDS
from kilotune.data.example import comparable

SIGNS = [chr(point) for point in range(0x4E00, 0x4E00 + 2500)]


def vocabulary(rng: Random, count: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(count)]


def jaccard(one: str, other: str) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}

    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def test_one_word_exchanged_in_thirteen_is_near_and_in_ten_is_not() -> None:
    first, second = "a long sentence about the weather", "that nobody will ever read"
    words = [*first.split(), "in", "spring", *second.split()]
    assert len(words) == 13
    other = [*words[:6], "of", *words[7:]]
    assert near_pairs([" ".join(words), " ".join(other)]) == [(0, 1)]
    assert near_pairs([" ".join(words[:10]), " ".join(other[:10])]) == []


def test_punctuation_is_no_difference_but_names_with_signs_are() -> None:
    texts = [
        "how do i sort a list in c",
        "how do i sort a list, in c?",
        "how do i sort a list in c#",
    ]
    assert near_pairs(texts) == [(0, 1), (0, 2)]
    assert near_pairs(["explain c", "explain c#"]) == []
    assert near_pairs(["c", "c#", "c++", "?!", "..."]) == []


def test_short_templated_texts_are_not_near() -> None:
    texts = [f"film {i} was {('great', 'awful')[i % 2]}" for i in range(200)]
    assert near_pairs(texts) == []


def test_a_template_filled_with_other_numbers_is_not_near() -> None:
    form = "order {} arrived late and the box was open when the neighbour brought it to my door"
    assert near_pairs([form.format(17), form.format(18)]) == []
    assert near_pairs([form.format(17), form.format("") + " today"]) == [(0, 1)]
    assert (
        near_pairs([f"第{i}号订单送来的时候已经打开了而且里面的东西少了一半" for i in (17, 18)])
        == []
    )


def test_long_instructions_that_all_share_make_no_pair() -> None:
    rng = Random(0)
    told = " ".join(vocabulary(rng, 40))
    words = vocabulary(rng, 500)
    texts = [f"{told} {' '.join(rng.choices(words, k=6))}" for _ in range(100)]
    assert jaccard(texts[0], texts[1]) > THRESHOLD
    assert near_pairs(texts) == []
    texts.append(f"{texts[4]} indeed")
    assert near_pairs(texts) == [(4, 100)]


def edited(rng: Random, words: list[str], edits: int, tokens: list[str]) -> str:
    """`words` with some of them exchanged."""
    copy = list(words)
    for place in rng.sample(range(len(words)), edits):
        copy[place] = rng.choice(tokens)
    return " ".join(copy)


@pytest.mark.parametrize(("copies", "others"), [(16, 44), (30, 70), (80, 20), (100, 0), (300, 700)])
def test_many_copies_of_one_text_are_one_cluster(copies: int, others: int) -> None:
    rng = Random(5)
    words = vocabulary(rng, 5000)
    base = rng.choices(words, k=30)
    texts = [edited(rng, base, 1, words) for _ in range(copies)]
    texts += [" ".join(rng.choices(words, k=30)) for _ in range(others)]
    pairs = near_pairs(texts)
    assert len(pairs) == copies - 1
    assert all(j < copies for _, j in pairs)


def test_many_copies_that_end_otherwise_are_one_cluster() -> None:
    rng = Random(6)
    words = vocabulary(rng, 5000)
    base = " ".join(rng.choices(words, k=20))
    texts = [f"{base} {word}" for word in words[:30]]
    texts += [" ".join(rng.choices(words, k=20)) for _ in range(70)]
    assert len(near_pairs(texts)) == 29
    signs = "".join(rng.choices(SIGNS, k=30))
    chinese = [signs[:i] + SIGNS[i] + signs[i + 1 :] for i in range(30)]
    chinese += ["".join(rng.choices(SIGNS, k=30)) for _ in range(70)]
    assert len(near_pairs(chinese)) == 29


@pytest.mark.parametrize("length", [15, 30])
def test_many_copies_behind_an_instruction_that_all_share_are_one_cluster(length: int) -> None:
    rng = Random(7)
    words = vocabulary(rng, 5000)
    told, base = " ".join(rng.choices(words, k=40)), rng.choices(words, k=length)
    texts = [f"{told} {edited(rng, base, 1, words)}" for _ in range(60)]
    texts += [f"{told} {' '.join(rng.choices(words, k=length))}" for _ in range(140)]
    pairs = near_pairs(texts)
    assert len(pairs) == 59
    assert all(j < 60 for _, j in pairs)


def test_forms_that_are_filled_in_make_no_pair() -> None:
    rng = Random(8)
    words = vocabulary(rng, 5000)
    forms = [" ".join(rng.choices(words, k=40)) for _ in range(4)]
    asked = ["what is the", "who wrote", "how many people live in"]
    own = [" ".join(rng.choices(words, k=6)) for _ in range(200)]
    # Whatever is asked behind the whole file's one instruction, be it one word.
    assert near_pairs([f"{forms[0]} {word}" for word in words[:200]]) == []
    assert near_pairs([f"{forms[0]} {asked[i % 3]} {own[i]}" for i in range(200)]) == []
    # Several forms in one file, each filled with texts of their own.
    assert near_pairs([f"{forms[i % 4]} {text}" for i, text in enumerate(own)]) == []


def test_one_rare_shingle_in_common_makes_no_pair_of_common_ones() -> None:
    words = vocabulary(Random(9), 300)
    phrases = [f"{' '.join(words[8 * i : 8 * i + 8])} the" for i in range(5)]
    texts = [f"{phrases[i % 5]} {words[100 + i]}" for i in range(150)]
    ends = [f"{phrase} end" for phrase in phrases]
    assert jaccard(*ends[:2]) < 0.1
    among = [pair for pair in near_pairs([*texts, *ends]) if pair[0] >= 150]
    assert among == []


def test_a_copy_among_texts_of_recurring_phrases_is_found() -> None:
    """Each phrase is in a sixth of the texts, so that its words are common ones."""
    rng = Random(3)
    parts = [[f"a{p}{w} b{p}{w} c{p}{w}" for w in "uvwxyz"] for p in range(5)]
    texts = list(dict.fromkeys(" ".join(map(rng.choice, parts)) for _ in range(90)))
    copy = texts[7].replace(texts[7].split()[7], "else")
    found = near_pairs([*texts, copy])
    assert (7, len(texts)) in found
    assert len(found) < 10


def test_texts_of_other_contexts_are_never_a_pair() -> None:
    texts = [
        "what do you see in this picture of a street",
        "what do you see in this picture of a street!",
    ]
    assert near_pairs(texts, ["a.png", "a.png"]) == [(0, 1)]
    assert near_pairs(texts, ["a.png", "b.png"]) == []


def planted(rng: Random, tokens: list[str], joint: str, length: int, edits: int) -> list[str]:
    """800 random texts and 200 copies of the first of them, `edits` tokens exchanged in each."""
    weights = [1 / (rank + 1) for rank in range(len(tokens))]
    drawn = [rng.choices(tokens, weights, k=length) for _ in range(800)]
    copies = [list(text) for text in drawn[:200]]
    for text in copies:
        for place in rng.sample(range(length), edits):
            text[place] = rng.choice(tokens)
    return [joint.join(text) for text in [*drawn, *copies]]


def test_planted_english_copies_are_found_and_nothing_else() -> None:
    rng = Random(1)
    found = near_pairs(planted(rng, vocabulary(rng, 5000), " ", 50, 3))
    right = {(i, 800 + i) for i in range(200)}
    assert len(right & set(found)) >= 198
    assert set(found) <= right


def test_planted_chinese_copies_are_found_and_nothing_else() -> None:
    found = near_pairs(planted(Random(2), SIGNS, "", 60, 2))
    right = {(i, 800 + i) for i in range(200)}
    assert len(right & set(found)) >= 198
    assert set(found) <= right


def test_real_chinese_sentences() -> None:
    texts = [
        "这家餐厅的服务非常周到，菜的味道也很好，下次还会带朋友一起来。",
        "这家餐厅的服务非常周到,菜的味道也很棒，下次还会带朋友一起来",
        "房间的隔音太差了，晚上根本睡不着，再也不会住这里。",
    ]
    assert near_pairs([comparable(text) for text in texts]) == [(0, 1)]


def test_a_crowd_of_copies_is_one_cluster_in_a_forest() -> None:
    rng = Random(3)
    words = vocabulary(rng, 3000)
    base = rng.choices(words, k=60)
    noise = [" ".join(rng.choices(words, k=60)) for _ in range(400)]
    crowd = [" ".join([*base[:i], rng.choice(words), *base[i + 1 :]]) for i in range(0, 40, 2)]
    assert near_pairs([*noise, *crowd]) == sorted(near_pairs([*noise, *crowd]))
    assert len(near_pairs([*noise, *crowd])) == len(crowd) - 1


TEXTS = st.lists(st.text("ab cd.日本語7é", max_size=30).map(comparable), max_size=12)


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_any_texts_give_ordered_pairs_without_cycles(texts: list[str]) -> None:
    pairs = near_pairs(texts)
    assert pairs == near_pairs(texts)
    assert all(0 <= i < j < len(texts) for i, j in pairs)
    assert len(pairs) <= max(0, len(texts) - 1)
