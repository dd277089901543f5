from pathlib import Path

import pytest
from sklearn.metrics import confusion_matrix, f1_score

from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Unavailable
from kilotune.evaluation.judgement import Judgement, judge_system
from kilotune.evaluation.task_metrics import own_scores


def judged(task: str, references: list[str], said: list[str], **others: object) -> Judgement:
    labels = sorted(set(references)) if task == "classify" else []
    return judge_system(
        "x", task, references, said, labels, settings={"samples": 100, "seed": 0}, **others
    )


def test_labels_have_weighted_f1_and_a_confusion_matrix() -> None:
    references = ["a"] * 8 + ["b"] * 4 + ["c"] * 2
    said = ["a"] * 6 + ["b", ""] + ["b"] * 3 + ["c"] + ["c", "a"]
    found = judged("classify", references, said)
    labels = ["a", "b", "c"]
    weighted = f1_score(references, said, labels=labels, average="weighted")
    assert found.details["weighted_f1"].value == pytest.approx(weighted)
    assert found.confusion is not None
    theirs = confusion_matrix(references, said, labels=["", *labels])[1:]
    assert [[*row[1:], row[0]] for row in theirs.tolist()] == [
        list(row) for row in found.confusion.counts
    ]


def test_texts_have_rouge_chrf_and_bleu_with_intervals() -> None:
    references = [f"the {n} red cats sat on mats" for n in range(12)]
    found = judged("generate", references, [r.replace("red", "blue") for r in references])
    assert list(found.details) == ["rouge_l", "chrf", "bleu"]
    assert found.details["rouge_l"].value == pytest.approx(6 / 7)
    for figure in found.details.values():
        assert figure.low < figure.value < figure.high


def test_json_has_validity_precision_and_recall() -> None:
    references = ['{"a": 1, "b": 2}'] * 8
    said = ['{"a": 1}'] * 4 + ['{"a": 1, "b": 3, "c": 4}'] * 2 + [""] * 2
    found = {name: f.value for name, f in judged("extract", references, said).details.items()}
    assert found["json_validity"] == pytest.approx(6 / 8)
    assert found["field_precision"] == pytest.approx((4 * 1 + 2 / 3) / 8)
    assert found["field_recall"] == pytest.approx((4 * 0.5 + 2 * 0.5) / 8)


def test_of_too_few_examples_every_figure_is_unavailable() -> None:
    found = judged("generate", ["a b"] * 3, ["a b"] * 3)
    figures = [*found.figures.values(), *found.details.values()]
    assert figures == [Unavailable("3 examples; at least 6 are needed")] * 5


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_scores.py").write_text(
        "def first_letter(prediction, reference):\n"
        "    return float(prediction[:1] == reference[:1])\n"
        "def broken(prediction, reference):\n    return 1 / 0\n"
        "def endless(prediction, reference):\n    return float('inf')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_scores:first_letter"


def test_a_metric_of_ones_own_is_judged_with_an_interval(own: str) -> None:
    references = [f"{letter}x" for letter in "abcdefghij"]
    said = [f"{letter}y" for letter in "abcdefghxx"]
    figure = judged("generate", references, said, own=own).details[own]
    assert figure.value == pytest.approx(0.8)
    assert 0.3 < figure.low < 0.8 < figure.high <= 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("my_scores:broken", "the metric fails: ZeroDivisionError"),
        ("my_scores:endless", "the metric gives inf"),
        ("my_scores:absent", "cannot import it"),
        ("no_such_module_at_all:x", "cannot import it"),
    ],
)
def test_a_metric_that_is_none_is_one_clear_error(own: str, path: str, words: str) -> None:
    with pytest.raises(KilotuneError, match=words):
        own_scores(path, ["a"], ["b"])
