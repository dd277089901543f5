"""The real dictionaries, as `make assets` has fetched them."""

import random
from collections.abc import Mapping

import pytest

from kilotune.augmentation.dictionaries import dictionary_folder, thesauri
from kilotune.augmentation.segments import CHINESE, ENGLISH
from kilotune.augmentation.synonyms import Thesaurus
from kilotune.augmentation.wordnet import FILES, WordNet


@pytest.fixture(scope="module")
def fetched() -> Mapping[str, Thesaurus]:
    return thesauri({ENGLISH, CHINESE}, dictionary_folder("wordnet"))


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("movies", ("films", "pictures", "motion pictures", "flicks")),
        ("quickly", ("rapidly", "speedily")),
        ("actors", ("players",)),
        ("stopped", ("halted",)),
        ("terrible", ("awful", "dreadful", "fearful", "frightening")),
        ("boring", ()),  # bored through, or dull
        ("set", ()),  # it was, or it is
    ],
)
def test_wordnet_has_synonyms_in_the_same_form(
    fetched: Mapping[str, Thesaurus], word: str, others: tuple[str, ...]
) -> None:
    assert fetched[ENGLISH].synonyms(word) == others


def test_the_past_of_verbs_that_do_not_change_is_as_they_are(
    fetched: Mapping[str, Thesaurus],
) -> None:
    found = fetched[ENGLISH].synonyms("began")
    assert {"started", "set about", "set out"} <= {*found}
    assert not any("setted" in other for other in found)


@pytest.mark.parametrize("part", FILES)
def test_every_word_of_wordnets_index_is_in_the_synset_it_names(part: str) -> None:
    wordnet = WordNet(dictionary_folder("wordnet"))
    lemmas = sorted(lemma for lemma in wordnet._index[part] if lemma.isalpha())
    for lemma in random.Random(0).sample(lemmas, 500):
        entry = wordnet._entry(part, lemma)
        assert entry is not None
        start = wordnet._data[part][entry.offset :].split(b" |", 1)[0].decode().lower()
        assert lemma in [word.partition("(")[0] for word in start.split()]
        list(wordnet.members(part, entry.offset))  # it raises where the files do not fit


def test_cilin_has_synonyms_of_words_that_are_in_one_set(
    fetched: Mapping[str, Thesaurus],
) -> None:
    chinese = fetched[CHINESE]
    assert chinese.synonyms("电影") == ("影戏", "影片", "影视", "录像")
    assert "医师" in chinese.synonyms("医生")
    assert chinese.synonyms("非常") == ()  # in two sets
    assert chinese.synonyms("一个") == ()  # a word of grammar
