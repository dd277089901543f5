import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilotune.evaluation.evidence import Resampling
from kilotune.evaluation.judgement import judge_system, quick_metrics, scores
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE, field_f1, read_json, token_f1


def test_token_f1_against_its_definition() -> None:
    # Words in common: the, cat, sat; 4 and 5 words.
    assert token_f1("The cat sat down.", "the cat sat on it") == pytest.approx(2 * 3 / 9)
    assert token_f1("a a b", "a c") == pytest.approx(2 * 1 / 5)
    assert token_f1("", "") == token_f1("?!", "...") == 1
    assert token_f1("", "word") == token_f1("word", "") == 0


def test_token_f1_counts_ideographs_one_by_one() -> None:
    # Three of four and three: 今, 天, 好.
    assert token_f1("今天很好", "今天好") == pytest.approx(2 * 3 / 7)
    assert token_f1("用GPU跑", "用 gpu 跑") == 1


@given(st.text(max_size=30), st.text(max_size=30))
def test_token_f1_is_symmetric_and_in_range(first: str, second: str) -> None:
    assert token_f1(first, second) == token_f1(second, first)
    assert 0 <= token_f1(first, second) <= 1
    assert token_f1(first, first) == 1


def test_json_is_read_in_a_fence_and_in_any_order() -> None:
    assert read_json('```json\n{"b": 1, "a": [2]}\n```', ()) == '{"a": [2], "b": 1}'
    assert read_json('Sure: {"a": 1}', ()) == UNREADABLE
    assert read_json("7", ()) == UNREADABLE
    assert TASKS["extract"].right('{"b": 1, "a": 2}', '{"a": 2, "b": 1}')
    assert not TASKS["extract"].right('{"a": 2}', '{"a": "2"}')


def test_field_f1_counts_paths_with_values() -> None:
    wanted = '{"name": "Ann", "age": 3, "tags": ["x", "y"]}'
    assert field_f1('{"tags": ["y", "x"], "name": "Ann", "age": 3}', wanted) == 1
    # name and tags[]=x agree; 3 fields found, 4 wanted.
    assert field_f1('{"name": "Ann", "age": 4, "tags": ["x"]}', wanted) == pytest.approx(4 / 7)
    assert field_f1("no json", wanted) == 0


@pytest.mark.parametrize(
    ("said", "wanted", "right", "graded"),
    [
        ('{"a": true}', '{"a": 1}', False, 0),
        ('{"a": false}', '{"a": 0}', False, 0),
        ("[true]", "[1.0]", False, 0),
        ('{"a": 1}', '{"a": 1.0}', True, 1),
        ('{"a": [100, -0.0]}', '{"a": [1e2, 0]}', True, 1),
        ('{"a": "1"}', '{"a": 1}', False, 0),
        ('{"a": "x", "b": []}', '{"a": "x", "b": []}', True, 1),
        ('{"a": "x", "b": {}}', '{"a": "x", "b": []}', False, 1 / 2),
        ('{"a": "x"}', '{"a": "x", "b": []}', False, 2 / 3),
        ('{"a": "x"}', '{"a": "x", "b": null}', False, 2 / 3),
        ('{"b": null, "a": "x"}', '{"a": "x", "b": null}', True, 1),
        ("{}", "{}", True, 1),
        ("{}", "[]", False, 0),
        ("null", "null", True, 1),
        ("null", "{}", False, 0),
        ("no idea", "null", False, 0),
        ("no idea", "nor this", False, 0),
        ("{}", "nor this", False, 0),
        ('{"a": NaN}', '{"a": NaN}', False, 0),
        ('{"a": 1e999}', '{"a": 1e999}', False, 0),
        ('{"a.b": 1}', '{"a": {"b": 1}}', False, 0),
        ("[1, 2]", "[2, 1]", False, 1),
    ],
)
def test_json_is_judged_by_its_values(said: str, wanted: str, right: bool, graded: float) -> None:
    read = read_json(said, ())
    assert TASKS["extract"].right(read, wanted) is right
    assert field_f1(read, wanted) == pytest.approx(graded)


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', "[-Infinity]", '{"a": 1e999}', '["\\ud800"]', "```", ""]
)
def test_what_is_no_json_is_unreadable(text: str) -> None:
    assert read_json(text, ()) == UNREADABLE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(JSON, max_size=3), st.lists(JSON, max_size=3))
def test_what_is_right_has_the_full_grade(first: list[object], second: list[object]) -> None:
    said, wanted = json.dumps(first), json.dumps(second)
    assert TASKS["extract"].right(read_json(said, ()), said)
    assert field_f1(said, said) == 1
    assert field_f1(said, wanted) == field_f1(wanted, said)
    if TASKS["extract"].right(said, wanted):
        assert field_f1(said, wanted) == 1


def test_a_long_half_fence_takes_no_time() -> None:
    began = time.process_time()
    assert read_json("```" + " " * 500_000 + "x", ()) == UNREADABLE
    assert time.process_time() - began < 1


def test_free_text_is_judged_by_match_and_words() -> None:
    references, said = ["the red house", "yes", "no"] * 2, ["A red house", " YES ", ""] * 2
    settings = Resampling(samples=200, seed=0)
    judged = judge_system("tuned", "generate", references, said, (), settings=settings)
    assert list(judged.figures) == ["exact_match", "token_f1"]
    assert judged.figures["exact_match"].value == pytest.approx(1 / 3)
    assert judged.figures["token_f1"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert (judged.unreadable, judged.classes) == (2, ())
    assert quick_metrics("generate", references, said, ()) == pytest.approx(
        {name: figure.value for name, figure in judged.figures.items()}
    )


def test_scores_of_labels_are_zero_or_one() -> None:
    assert scores("classify", ["a", "b"], ["a", ""]) == [1.0, 0.0]
