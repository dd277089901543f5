from kilotune.data.checks.language import answer_language
from tests.data.test_languages import TEXTS
from tests.support.made import answered, conversation, sentences

ENGLISH = [(f"Question {i}?", f"It was {text} and that is all there is to it.")
           for i, text in enumerate(sentences(20))]  # fmt: skip


def test_an_answer_in_another_language_is_named() -> None:
    rows = answered(*ENGLISH, ("Why was the bridge closed?", TEXTS["German"]))
    (finding,) = answer_language(rows)
    assert (finding.code, finding.severity, finding.rows) == (
        "answer-language", "warning", ("data:21",),
    )  # fmt: skip
    assert "(German) than the rest, English" in finding.message


def test_answers_in_the_language_asked_in_or_asked_for_are_left_alone() -> None:
    rows = answered(
        *ENGLISH,
        ("Warum war die Brücke in der Stadt nicht für den Verkehr offen?", TEXTS["German"]),
        ("Translate: the bridge was closed.", TEXTS["French"]),
        ("Say it in Dutch.", TEXTS["Dutch"]),
    )
    told = ("system", "Answer in Spanish."), ("user", "Why?"), ("assistant", TEXTS["Spanish"])
    assert answer_language([*rows, conversation(30, *told)]) == []


def test_files_of_several_languages_or_few_answers_have_no_usual_one() -> None:
    mixed = [("q", TEXTS["German"])] * 4
    assert answer_language(answered(*ENGLISH, *mixed)) == []
    assert answer_language(answered(*ENGLISH[:5], mixed[0])) == []
    assert answer_language(answered(*ENGLISH, ("q", "def f(und, der, die): return 1"))) == []
