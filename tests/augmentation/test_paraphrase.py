import random
from collections import Counter
from collections.abc import Sequence

import pytest

from kilotune.augmentation.model_protocols import Conversation, Gap
from kilotune.augmentation.operation import Draw
from kilotune.augmentation.paraphrase import in_context, paraphrases, read
from kilotune.augmentation.protection import Protection
from kilotune.data.example import Example
from kilotune.errors import KilotuneError
from tests.support.made import classified

[EXAMPLE] = classified(("The 3 actors are a joy to watch.", "good"))


class Said:
    """A writer that answers from a list, and keeps what it was asked."""

    name = "said"

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def write(
        self, conversations: Sequence[Conversation], *, temperature: float, seed: int
    ) -> list[str]:
        self.asked += [turns[-1].text for turns in conversations]
        return list(self.answers)


@pytest.mark.parametrize(
    ("answer", "text", "reason"),
    [
        ("Watching the 3 actors is fun.", "Watching the 3 actors is fun.", ""),
        ('"Watching the 3 actors is fun."', "Watching the 3 actors is fun.", ""),
        ("Sure, here it is:\n\nThe 3 actors delight.", "The 3 actors delight.", ""),
        ("The 3 actors delight.\n\nI kept the number.", "The 3 actors delight.", ""),
        ("", "", "empty or unfinished"),
        ("Here is the rewritten text:", "", "empty or unfinished"),
        ("THE 3 actors are a joy to  watch.", "", "copied"),
        ("The actors are fun.", "", "lost what is protected"),
        ("I'm sorry, but I can't rewrite the 3 actors.", "", "declined"),
    ],
)
def test_answers_are_read_or_refused(answer: str, text: str, reason: str) -> None:
    assert read(answer, EXAMPLE, Protection()) == (text, reason)


def made(writer: Said, every: Sequence[Example], prompt: str | None = None) -> list[list[str]]:
    refused: Counter[str] = Counter()
    bulk = paraphrases(
        writer, Protection().of(every), refused, prompt=prompt, temperature=0.8, seed=0
    )
    results = bulk([Draw(example, random.Random(0)) for example in every])
    assert sum(refused.values()) == sum(not each for each in results)
    return [[example.text for example in each] for each in results]


def test_each_example_gets_its_own_answer_in_any_order() -> None:
    every = classified(("One day came.", "a"), ("Some night fell.", "b"))
    assert made(Said("A day came.", "A night fell."), every) == [["A day came."], ["A night fell."]]
    back = made(Said("A day came.", "A night fell."), every[::-1])
    assert back == [["A night fell."], ["A day came."]]


def test_the_prompt_is_the_users_and_the_instruction_stays() -> None:
    every = classified(*((f"Mood? {line}", "a") for line in ("One day.", "My night.", "No rain.")))
    writer = Said("A day.", "A night.", "Some rain.")
    assert made(writer, every, "Say again: {text}")[0] == ["Mood? A day."]
    assert writer.asked[0] == "Say again: One day."
    with pytest.raises(KilotuneError, match=r"no \{text\}"):
        made(writer, every, "Say again")


def test_chinese_is_asked_for_in_chinese() -> None:
    writer = Said("很好看的电影")
    made(writer, classified(("这部电影很好看", "好")))
    assert writer.asked[0].startswith("换一种说法")


class Table:
    """A guesser that knows three words."""

    def guesses(self, gaps: Sequence[Gap]) -> list[list[tuple[str, float]]]:
        assert all(gap.left + gap.word + gap.right == EXAMPLE.text for gap in gaps)
        known = {"actors": [("players", -0.5), ("Hamlet", 3.0), ("acted", 1.0), ("rocks", -9.0)]}
        return [known.get(gap.word, []) for gap in gaps]


def test_words_are_replaced_by_likely_ones_of_their_kind() -> None:
    bulk = in_context(Table(), Protection(), 0.9)
    [[changed]] = bulk([Draw(EXAMPLE, random.Random(0))])
    assert changed.text == "The 3 players are a joy to watch."
    assert changed.label == "good"
