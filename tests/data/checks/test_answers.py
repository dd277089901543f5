import json

from kilotune.data.checks.answers import answer_script, invalid_json, json_schema
from kilotune.data.example import Example
from tests.support.made import answered, sentences


def extracted(*answers: object) -> list[Example]:
    return answered(*((f"q{i}", json.dumps(answer)) for i, answer in enumerate(answers)))


def orders(count: int) -> list[object]:
    return [{"item": f"i{n}", "count": n, "note": None if n % 2 else "x"} for n in range(count)]


def test_answers_that_are_no_json_are_an_error() -> None:
    rows = answered(
        ("a", '{"x": 1}'),
        ("b", "{'x': 1}"),
        ("c", '```json\n{"x": 1}\n```'),
        ("d", "NaN"),
        ("e", ""),
    )
    (finding,) = invalid_json(rows)
    assert (finding.severity, finding.rows) == ("error", ("data:2", "data:3", "data:4"))


def test_one_form_with_nulls_is_left_alone() -> None:
    assert json_schema(extracted(*orders(20))) == []


def test_a_lacking_key_another_type_and_a_lone_key_are_named() -> None:
    odd = [{"item": "a", "note": "x"}, {"item": 7, "count": 1, "note": "x"},
           {"item": "a", "count": 1, "note": "x", "amount": 3}, ["a"]]  # fmt: skip
    (finding,) = json_schema(extracted(*orders(40), *odd))
    assert finding.rows == ("data:41", "data:42", "data:43", "data:44")
    for words in (
        "no $.count",
        "$.item is number, not text",
        "no other row has $.amount",
        "$ is list",
    ):
        assert words in finding.message


def test_lists_of_objects_are_compared_inside() -> None:
    good = [{"people": [{"name": "a", "age": n}] * (n % 3)} for n in range(30)]
    assert json_schema(extracted(*good)) == []
    (finding,) = json_schema(extracted(*good, {"people": [{"name": "a", "age": "old"}]}))
    assert finding.rows == ("data:31",)
    assert "$.people[].age is text, not number" in finding.message


def test_optional_keys_and_keys_that_are_data_are_left_alone() -> None:
    optional = [{"a": 1, **({"b": 2} if n % 4 == 0 else {})} for n in range(20)]
    assert json_schema(extracted(*optional)) == []
    assert json_schema(extracted(*({f"word{n}": n} for n in range(20)))) == []
    assert json_schema(extracted(*orders(5), ["odd"])) == []


def test_deep_nesting_is_read_without_end() -> None:
    deep = "[" * 400 + "]" * 400
    assert json_schema(answered(*((f"q{i}", deep) for i in range(12)))) == []
    assert len(invalid_json(answered(("q", "[" * 200_000)))) == 1


ENGLISH = [(text, f"Yes, {text.lower()}, and nobody knew why") for text in sentences(30)]
CHINESE = [
    (f"请介绍第{i}座城市的历史", f"第{i}座城市有着悠久的历史和丰富的文化遗产") for i in range(30)
]


def test_an_answer_in_another_script_is_found() -> None:
    rows = answered(*ENGLISH, ("Where is the old lamp now?", CHINESE[0][1]))
    (finding,) = answer_script(rows)
    assert (finding.code, finding.rows) == ("answer-script", ("data:31",))


def test_mixed_data_answered_in_kind_are_left_alone_and_a_mixed_up_row_is_found() -> None:
    assert answer_script(answered(*ENGLISH, *CHINESE)) == []
    (finding,) = answer_script(answered(*ENGLISH, *CHINESE, (CHINESE[0][0], ENGLISH[0][1])))
    assert finding.rows == ("data:61",)


def test_translations_are_left_alone_and_an_untranslated_row_is_found() -> None:
    across = [(asked, answer) for (asked, _), (answer, _) in zip(CHINESE, ENGLISH, strict=True)]
    assert answer_script(answered(*across)) == []
    (finding,) = answer_script(answered(*across, CHINESE[3]))
    assert finding.rows == ("data:31",)


def test_code_names_and_asked_for_translations_are_left_alone() -> None:
    rows = answered(
        *CHINESE,
        ("写一个循环", "```python\nfor number in range(10):\n    print(number)\n```"),
        ("谁写了这本书", "Ursula Le Guin"),
        ("把这句话翻译成英文：今天天气很好", "The weather is really nice today"),
        ("用Python写一个循环打印数字", "for number in range(ten): print(number) and so on"),
    )
    assert answer_script(rows) == []
