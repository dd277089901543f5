import random
from pathlib import Path

import pytest

from kilotune.augmentation.dictionaries import thesauri
from kilotune.augmentation.protection import Protection
from kilotune.augmentation.synonyms import SynonymTable, read_cilin, read_pairs, synonym, words_from
from kilotune.augmentation.wordnet import WordNet
from kilotune.errors import KilotuneError
from tests.augmentation.lexicon import write_wordnet
from tests.support.made import classified


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    return WordNet(write_wordnet(tmp_path_factory.mktemp("lexicon") / "wordnet"))


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("movie", ("film", "picture")),
        ("movies", ("films", "pictures")),
        ("stories", ("tales",)),
        ("tales", ("stories",)),
        ("stopped", ("halted",)),
        ("stopping", ("halting",)),
        ("halted", ("stopped",)),
        ("buys", ("purchases",)),
        ("purchased", ()),  # "bought" may be a past or a participle
        ("weeping", ("crying",)),
        ("cries", ("weeps",)),
        ("biggest", ("largest",)),
        ("larger", ("bigger",)),
        ("quickly", ("fast",)),
        ("unknown", ()),
        ("not", ()),
    ],
)
def test_part_of_speech_and_inflection_are_kept(
    wordnet: WordNet, word: str, others: tuple[str, ...]
) -> None:
    assert wordnet.synonyms(word) == others


def test_case_and_article_follow_the_word(wordnet: WordNet) -> None:
    operation = synonym(Protection(), 0.9, {"English": wordnet}, usual="English")
    [example] = classified(("STORIES of an hour: an apple", "x"))
    assert operation(example, random.Random(0))[0].text == "TALES of a minute: an orange"


def test_protected_words_are_not_replaced(wordnet: WordNet) -> None:
    operation = synonym(Protection(), 0.9, {"English": wordnet}, usual="English")
    [example] = classified(('"The movie" was a big movie, see www.movie.example', "x"))
    made = operation(example, random.Random(0))[0].text
    assert made.startswith('"The movie" was a large ')
    assert made.endswith("www.movie.example")
    assert " movie," not in made


def test_insertion_inserts_synonyms(wordnet: WordNet) -> None:
    words = words_from({"English": wordnet}, None, "English")
    assert words(["the", "story"], random.Random(0), 2) == ["tale"]
    assert words(["the", "unheard"], random.Random(0), 2) == []


def test_cilin_sets_are_read_and_ambiguous_words_left_out(tmp_path: Path) -> None:
    path = tmp_path / "cilin.txt"
    path.write_text(
        "Aa01= 电影 影片\nAb01= 好看 漂亮\nAb02= 漂亮 精彩\nAc01# 人 狗\n", encoding="utf-8"
    )
    table = read_cilin(path)
    assert table.synonyms("电影") == ("影片",)
    assert table.synonyms("漂亮") == ()
    assert table.synonyms("人") == ()


def test_the_users_file_goes_before_the_dictionary(wordnet: WordNet, tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("movie\tflick\n", encoding="utf-8")
    operation = synonym(Protection(), 0.1, {"English": wordnet}, read_pairs(path), "English")
    [example] = classified(("The movie", "x"))
    assert operation(example, random.Random(0))[0].text == "The flick"
    path.write_text("movie\tflick\nmovie\nmovie,film\n", encoding="utf-8")
    with pytest.raises(KilotuneError, match=r"not a word and a synonym: 2[.]"):
        read_pairs(path)


def test_a_text_in_another_language_is_left_alone(wordnet: WordNet) -> None:
    operation = synonym(Protection(), 0.9, {"English": wordnet})
    german = "Der movie ist nicht gut und die story ist auch nicht von mir"
    assert operation(classified((german, "x"))[0], random.Random(0)) == []
    chinese = synonym(Protection(), 0.9, {"Chinese": SynonymTable({"电影": ("影片",)})})
    assert chinese(classified(("Plain English words", "x"))[0], random.Random(0)) == []


def test_a_folder_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match=r"lacks index[.]noun"):
        thesauri({"English"}, tmp_path)
    with pytest.raises(KilotuneError, match="kilotune fetch wordnet"):
        thesauri({"English"}, tmp_path / "none")
