import random
import re

import pytest

from kilotune.augmentation import segments
from kilotune.augmentation.edits import delete, insert, swap, times
from kilotune.augmentation.operation import Operation, imported, rng_of, stamped
from kilotune.augmentation.protection import (
    Protection,
    protection,
    repeated_lines,
    shared_beginning,
)
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from tests.support.made import answered, classified, sentences

PLAIN = Protection()
EDITS = {
    "insert": insert(PLAIN, 0.1),
    "delete": delete(PLAIN, 0.1),
    "swap": swap(PLAIN, 0.1),
}


def first(text: str, operation: Operation, seed: int = 0) -> str:
    [example] = classified((text, "x"))
    return operation(example, random.Random(seed))[0].text


def test_the_same_seed_gives_the_same_text() -> None:
    text = "The plot moves slowly, but the two actors are a joy."
    assert first(text, EDITS["swap"]) == "The plot moves slowly, but the actors two are a joy."
    assert first(text, EDITS["delete"]) == "The plot moves slowly, but the two actors a joy."
    assert (
        first(text, EDITS["insert"]) == "The plot moves slowly, but the two two actors are a joy."
    )


def test_alpha_says_how_many_words_change() -> None:
    words = " ".join(f"w{chr(97 + i)}" for i in range(20))
    changed = first(words, insert(PLAIN, 0.3))
    assert len(changed.split()) == 20 + times(0.3, 20) == 26


@pytest.mark.parametrize("name", EDITS)
def test_numbers_addresses_and_quotations_stay_in_a_thousand_texts(name: str) -> None:
    kept = ("3,500", "https://a.example/b?c=1", '"Star Wars"', "ann@mail.example", "@bob", "#tag")
    text = "Well " + " and then again ".join(kept) + " until nothing more was ever said"
    example = classified((text, "x"))[0]
    results = [EDITS[name](example, random.Random(seed)) for seed in range(1000)]
    texts = [made.text for result in results for made in result]
    assert len(texts) > 980  # a second swap may undo the first
    for made in texts:
        assert made != text
        assert [part in made for part in kept] == [True] * 6
        assert not made.startswith(" ")


def test_the_users_pattern_is_protected() -> None:
    operation = swap(protection([r"Dr\. \w+"]), 0.5)
    for seed in range(50):
        assert "Dr. Smith" in first("Then Dr. Smith came home late at night", operation, seed)
    with pytest.raises(KilotuneError, match="not a regular expression"):
        protection(["("])


def test_what_texts_share_is_an_instruction_and_stays() -> None:
    texts = [f"Name the mood of this review: {line}" for line in sentences(5)]
    assert shared_beginning(texts) == "Name the mood of this review: "
    assert repeated_lines([f"Read this.\n{line}" for line in sentences(5)]) == {"Read this."}
    shared = PLAIN.of(classified(*((text, "x") for text in texts)))
    for seed in range(50):
        assert first(texts[0], swap(shared, 0.5), seed).startswith("Name the mood of this review: ")


def test_values_that_the_answer_quotes_stay_in_the_text() -> None:
    [example] = answered(("Ann Lee sent the red lamp to Rome", '{"who": "Ann Lee", "to": "Rome"}'))
    for seed in range(50):
        [made] = delete(PLAIN, 0.4)(example, random.Random(seed))
        assert "Ann Lee" in made.text
        assert "Rome" in made.text
        assert made.answer == example.answer


def test_chinese_is_edited_by_signs_without_a_segmenter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "segmenter", lambda: list)
    made = first("这部电影很好看，共3集。", delete(PLAIN, 0.01))
    assert len(made) == len("这部电影很好看，共3集。") - 1
    assert "3" in made
    assert "single signs" in segments.segmented_by()


def test_chinese_is_edited_by_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "segmenter", lambda: lambda text: re.findall("..?", text))
    words = [piece.text for piece in segments.pieces("这部电影很好看") if piece.word]
    assert words == ["这部", "电影", "很好", "看"]


def test_a_text_without_words_gives_nothing() -> None:
    for operation in EDITS.values():
        assert operation(classified(("12 + 30 = 42", "x"))[0], random.Random(0)) == []
    assert EDITS["delete"](classified(("Good", "x"))[0], random.Random(0)) == []


def test_a_derived_example_says_what_made_it_of_which() -> None:
    [parent] = classified(("The plot moves slowly", "bad"), groups=("g",))
    [made] = stamped(parent, "swap", EDITS["swap"](parent, rng_of(0, "swap", parent.id)), 1)
    assert (made.id, made.label, made.group) == ("data:2+swap1", "bad", "g")
    assert str(made.origin) == "a.csv:2 (swap of data:2)"


def relabel(example: Example, rng: random.Random) -> list[Example]:
    return [Example(example.id, example.messages, example.origin, "other")]


def test_an_operation_that_changes_a_label_is_refused() -> None:
    [parent] = classified(("Fine", "good"))
    operation = imported("tests.augmentation.test_edits:relabel")
    with pytest.raises(KilotuneError, match="changed a label"):
        stamped(parent, "own", operation(parent, random.Random(0)), 1)
    with pytest.raises(KilotuneError, match="cannot import"):
        imported("tests.augmentation.test_edits:nothing")
