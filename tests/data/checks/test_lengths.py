import numpy as np
import pytest

from kilotune.data.checks.lengths import estimate_tokens, outliers, prompt_tokens, summary
from tests.support.made import answered, classified, conversation


def words(count: int) -> str:
    return " ".join(["word"] * count)


def test_tokens_are_estimated_by_the_writing() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("eight ch") == 2
    assert estimate_tokens("中文四字") == 4
    assert estimate_tokens("中文 abcd") == 2 + 2


def test_far_outliers_are_notes_and_say_the_limits() -> None:
    rows = classified(
        *((words(20 + i % 5), "a") for i in range(30)), (words(400), "a"), ("ok", "a")
    )
    long, short = outliers(rows, "classify", lambda text: len(text.split()))
    assert (long.code, long.severity, long.rows) == ("long-outlier", "note", ("data:32",))
    assert (short.code, short.rows) == ("short-outlier", ("data:33",))
    # The median of 22 tokens times exp(5 x 0.35).
    assert "over 127 tokens with a median of 22" in long.message
    assert "estimated tokens" in outliers(rows, "classify", None)[0].message


def test_lengths_that_vary_by_nature_have_no_outliers() -> None:
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.normal(3, 0.8, 2000)).astype(int) + 1
    assert outliers(classified(*((words(n), "a") for n in drawn)), "classify", None) == []


def test_few_or_empty_texts_have_no_outliers() -> None:
    rows = classified(*((words(5), "a") for _ in range(15)), (words(900), "a"))
    assert outliers(rows, "classify", None) == []
    assert outliers(classified(*(("", "a") for _ in range(30))), "classify", None) == []
    assert outliers([], "classify", None) == []


def test_answers_count_where_they_are_not_labels() -> None:
    rows = answered(*((words(10), words(10)) for _ in range(30)), (words(10), words(300)))
    (finding,) = outliers(rows, "generate", None)
    assert finding.rows == ("data:31",)
    assert "answers over" in finding.message


def test_the_summary_leaves_system_messages_out() -> None:
    row = conversation(1, ("system", words(100)), ("user", "a b c"), ("assistant", "d"))
    lengths = prompt_tokens([row], lambda text: len(text.split()))
    assert lengths.tolist() == [3]
    given = summary(np.array([1, 2, 3, 4, 100]), estimated=False)
    assert (given.least, given.median, given.most) == (1, 3, 100)
    assert given.p95 == pytest.approx(80.8, abs=0.5)
