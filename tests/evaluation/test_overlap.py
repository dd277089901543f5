import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, sentence_chrf

from kilotune.evaluation.overlap import bleu, chrf, rouge_l, words

PAIRS = [
    ("the cat sat on the mat today", "the cat is on the mat"),
    ("a dog", "the dog ran"),
    ("hello big world of many cats", "hello world of big cats"),
    ("", "nothing was said here"),
]

SENTENCES = st.lists(st.sampled_from(["a", "cat", "sat", "on", "mats"]), min_size=1, max_size=9)


@given(SENTENCES, SENTENCES)
def test_rouge_l_is_rouge_scores(first: list[str], second: list[str]) -> None:
    prediction, reference = " ".join(first), " ".join(second)
    theirs = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, reference) == pytest.approx(theirs)


def test_rouge_l_of_chinese_counts_characters() -> None:
    assert words("我爱北京 ABC") == ["我", "爱", "北", "京", "abc"]
    # In common and in order: 我, 北, 京.
    assert rouge_l("我在北京", "我爱北京城") == pytest.approx(2 * 3 / (4 + 5))
    assert rouge_l("", "...") == 1
    assert rouge_l("word", "") == 0


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_chrf_is_sacrebleus(prediction: str, reference: str) -> None:
    assert chrf(prediction, reference) == pytest.approx(
        sentence_chrf(prediction, [reference]).score / 100
    )


def test_bleu_of_any_rows_is_sacrebleus_of_that_corpus() -> None:
    predictions, references = map(list, zip(*PAIRS, strict=True))
    metric = bleu(predictions, references)
    for rows in ([0, 1, 2, 3], [0, 0, 2], [2]):
        theirs = corpus_bleu([predictions[i] for i in rows], [[references[i] for i in rows]])
        assert metric(np.array(rows)) == pytest.approx(theirs.score / 100)


def test_bleu_of_chinese_counts_characters() -> None:
    said, true = ["我们今天去北京看长城"], ["我们明天去北京看长城"]
    theirs = corpus_bleu(said, [true], tokenize="zh").score / 100
    assert bleu(said, true)(np.array([0])) == pytest.approx(theirs)
    assert 0.5 < theirs < 1
