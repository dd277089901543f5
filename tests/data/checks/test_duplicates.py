from dataclasses import replace
from random import Random

from kilotune.data.checks import check_leakage
from kilotune.data.checks.duplicates import components, first_of_each, free_repeats, repeats
from kilotune.data.example import Example, Image, Message, Origin
from kilotune.data.finding import Finding
from tests.support.made import answered, classified, conversation, pictured, sentences

LONG = "we stayed for three nights in a quiet room above the old harbour and slept very well"
NEARLY = LONG.replace("quiet", "silent")


def found(findings: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.rows for finding in findings}


def test_near_duplicates_name_the_later_row_and_its_original() -> None:
    (finding,) = repeats(classified((LONG, "a"), ("other", "b"), (NEARLY, "a")))
    assert (finding.code, finding.severity) == ("near-duplicate", "warning")
    assert finding.rows == ("data:4",)
    assert "(1): data:4 (data:2)" in finding.message
    (finding,) = repeats(classified((LONG, "a"), (NEARLY, "b")))
    assert "(1, 1 of them with another label): data:3 (data:2)" in finding.message


def test_an_exact_duplicate_is_not_also_a_near_one() -> None:
    rows = classified((LONG, "a"), (f" {LONG}\n", "a"), (NEARLY, "a"))
    assert found(repeats(rows)) == {"duplicate": ("data:3",), "near-duplicate": ("data:4",)}


def test_rows_equal_but_for_case_or_width_are_near_repeats_and_conflicts_as_before() -> None:
    rows = classified((LONG, "a"), (LONG.upper(), "a"), ("ok", "b"), ("\uff4f\uff4b", "b"))
    assert found(repeats(rows)) == {"near-duplicate": ("data:3", "data:5")}
    rows = classified((LONG, "a"), (LONG.upper(), "b"), (LONG, "a"))
    assert found(repeats(rows)) == {
        "conflicting-labels": ("data:2", "data:3", "data:4"),
        "duplicate": ("data:4",),
    }


def test_pictures_without_words_are_compared_too() -> None:
    def shown(row: int, name: str, label: str) -> Example:
        example = pictured(row, Image(name), text="")
        return replace(example, messages=(*example.prompt, Message("assistant", label)))

    rows = [shown(1, "a.png", "cat"), shown(2, "b.png", "cat"), shown(3, "a.png", "cat")]
    assert found(repeats(rows)) == {"duplicate": ("data:3",)}
    rows = [*rows[:2], shown(3, "b.png", "dog")]
    assert found(repeats(rows)) == {"conflicting-labels": ("data:2", "data:3")}


def test_two_answers_are_a_conflict_only_where_one_can_be_right() -> None:
    rows = answered(("name a fruit", "apple"), ("name a fruit", "pear"), ("Name a fruit", "Apple"))
    (strict,), (free,) = repeats(rows), free_repeats(rows)
    assert (strict.code, strict.severity, len(strict.rows)) == ("conflicting-labels", "warning", 3)
    assert (free.code, free.severity) == ("conflicting-labels", "note")


def test_the_whole_prompt_is_compared() -> None:
    def chat(row: int, first: str, answer: str) -> object:
        return conversation(
            row, ("user", first), ("assistant", answer), ("user", "go on"), ("assistant", "end")
        )

    rows = [chat(1, "a", "b"), chat(2, "a", "c"), chat(3, "a", "b")]
    assert found(free_repeats(rows)) == {"duplicate": ("data:3",)}  # type: ignore[arg-type]


def test_another_system_message_or_image_makes_another_question() -> None:
    systems = [
        conversation(i, ("system", s), ("user", LONG), ("assistant", "x"))
        for i, s in enumerate("ab")
    ]
    assert repeats(systems) == []
    images = [
        pictured(1, Image("a.png")),
        pictured(2, Image("b.png")),
        pictured(3, Image("c", data=b"1")),
    ]
    assert free_repeats(images) == []
    again = pictured(4, Image("other name", data=b"1"))
    assert found(free_repeats([*images, again])) == {"conflicting-labels": ("data:3", "data:4")}


def test_leakage_is_exact_near_or_by_group() -> None:
    train = classified((LONG, "a"), ("short", "b"), ("x", "a"), groups=("g1", "g2", "g3"))
    held = classified(
        (NEARLY, "a"), ("SHORT", "b"), ("y", "a"), ("z", "b"), groups=("h", "h", "g3", "")
    )
    assert found(check_leakage(train, held, "test")) == {
        "near-leakage": ("data:2",),
        "leakage": ("data:3",),
        "group-leakage": ("data:4",),
    }
    assert check_leakage(train, classified(("new", "a")), "test") == []


def test_copies_within_the_held_out_part_are_no_leakage() -> None:
    held = classified((LONG, "a"), (NEARLY, "a"))
    assert check_leakage(classified(*((text, "a") for text in sentences(20))), held, "test") == []


def copies_and_others() -> tuple[list[str], list[str]]:
    """Forty copies of a text, each with a word of its own in another place, and forty others."""
    rng = Random(0)
    words = ["".join(rng.choices("abcdefghijklm", k=6)) for _ in range(900)]
    own = [f"new{'abcd'[i // 10]}{'xy'[i % 2]}" for i in range(40)]
    copies = [" ".join([*words[: i % 20], own[i], *words[i % 20 : 20]]) for i in range(40)]
    return copies, [" ".join(words[20 * i : 20 * i + 20]) for i in range(1, 41)]


def test_leakage_of_many_copies_is_found_wherever_they_are() -> None:
    copies, others = copies_and_others()
    train = classified(*((text, "a") for text in [*copies[:30], *others[:30]]))
    held = classified(*((text, "a") for text in [*copies[30:], *others[30:]]))
    rows = tuple(example.id for example in held[:10])
    assert found(check_leakage(train, held, "test")) == {"near-leakage": rows}
    one = classified(*((text, "a") for text in [*others[:30], copies[0]]))
    many = classified(*((text, "a") for text in [*copies[1:], *others[30:]]))
    assert len(found(check_leakage(one, many, "test"))["near-leakage"]) == 39
    assert len(set(components(train))) == 31
    (finding,) = repeats(train)
    assert (finding.code, len(finding.rows)) == ("near-duplicate", 29)
    assert "with 70% or more of their pairs of words" in finding.message


def test_another_answer_to_a_question_hides_no_leak() -> None:
    trained, held = answered(("name a yellow fruit", "banana")), answered(
        ("Name a yellow fruit", "lemon")
    )  # fmt: skip
    assert found(check_leakage(trained, held, "test")) == {"leakage": ("data:1",)}
    assert len(set(components([*trained, *held]))) == 1


def test_one_text_about_other_images_is_no_repeat_and_no_leak() -> None:
    def look(row: int, image: Image) -> Example:
        asked = Message("user", (image, LONG)), Message("assistant", "a cat")
        more = Message("user", "and why?"), Message("assistant", f"number {row}")
        return Example(f"data:{row}", (*asked, *more), Origin("a.jsonl", row))

    first, second = look(1, Image("a.png", "train")), look(2, Image("b.png", "train"))
    assert free_repeats([first, second]) == []
    assert len(set(components([first, second]))) == 2
    assert check_leakage([first], [second], "test") == []
    # The same file by another path, from a file in another folder.
    again = look(3, Image("../train/a.png", "test"))
    assert found(check_leakage([first], [again], "test")) == {"leakage": ("data:3",)}
    assert len(set(components([look(i, Image(f"{i}.png")) for i in range(40)]))) == 40


def test_components_join_groups_repeats_and_near_repeats() -> None:
    rows = classified(
        (LONG, "a"), ("one", "a"), (NEARLY, "b"), ("ONE", "b"), ("two", "a"), ("three", "a"),
        groups=("", "g", "", "", "g", "")
    )  # fmt: skip
    numbers = components(rows)
    assert numbers[0] == numbers[2]
    assert numbers[1] == numbers[3] == numbers[4]
    assert len(set(numbers)) == 3
    assert components([]) == []


def test_the_first_of_each_text_stays_and_a_group_is_no_repeat() -> None:
    rows = classified((LONG, "a"), (LONG.upper(), "a"), ("quite another text here", "a"))
    grouped = [replace(row, group="one author") for row in rows]
    assert first_of_each(grouped) == [grouped[0], grouped[2]]


def test_components_chain_through_a_row_in_the_middle() -> None:
    words = LONG.split()
    middle = " ".join([*words[:-1], "badly"])
    far = " ".join(["they", *words[1:-1], "badly"])
    rows = classified((LONG, "a"), (far, "a"), (middle, "a"))
    assert len(set(components(rows))) == 1
    assert len(set(components([replace(row, group=row.id) for row in rows]))) == 1


def asked_behind(row: int, system: str, question: str = LONG) -> Example:
    return conversation(row, ("system", system), ("user", question), ("assistant", "x"))


def test_another_system_message_hides_no_leak_and_splits_nothing() -> None:
    trained, held = asked_behind(1, "Be brief."), asked_behind(2, "Be kind.")
    assert components([trained, held])[0] == components([trained, held])[1]
    assert found(check_leakage([trained], [held], "test")) == {"leakage": ("data:2",)}
    nearly = asked_behind(3, "Be kind.", NEARLY)
    assert found(check_leakage([trained], [nearly], "test")) == {"near-leakage": ("data:3",)}


def test_a_conversation_stays_with_those_that_continue_it() -> None:
    turns = [("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2")]
    short, whole = conversation(1, *turns[:2]), conversation(2, ("system", "s"), *turns)
    other = conversation(3, ("user", "one"), ("assistant", "another answer"), *turns[2:])
    together = components([short, whole, other])
    assert together[0] == together[1] != together[2]
    assert found(check_leakage([whole], [short], "test")) == {"leakage": ("data:1",)}
    assert found(check_leakage([short], [whole], "test")) == {"leakage": ("data:2",)}
    assert check_leakage([other], [whole], "test") == []
