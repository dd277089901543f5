import json
import time
from pathlib import Path

import pytest

from kilotune.data.checks import check_examples
from kilotune.data.column_plan import Reading
from kilotune.data.normalise import load_dataset, load_examples
from kilotune.errors import KilotuneError


def test_a_row_becomes_a_question_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,Review,Sentiment\n7, fine film ,positive\n")
    (example,) = load_examples(path)
    assert example.id == "data:2"
    assert [(m.role, m.content) for m in example.messages] == [
        ("user", "fine film"),
        ("assistant", "positive"),
    ]
    assert (example.label, example.origin.file, example.origin.row) == ("positive", "a.csv", 2)
    assert example.prompt == example.messages[:1]


def test_named_columns_win_over_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label,b,c\n1,2,3,4\n")
    (example,) = load_examples(path, text="b", label="c")
    assert (example.text, example.label) == ("3", "4")


def test_numbers_are_text_and_missing_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": null}\n{"text": null}\n')
    labels = [(e.text, e.label, len(e.messages)) for e in load_examples(path)]
    assert labels == [("a", "1", 2), ("b", None, 1), ("", None, 1)]


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("foo,bar\n1,2\n")
    with pytest.raises(KilotuneError) as caught:
        load_examples(path, text="body", label="bar")
    assert "no column 'body'; the columns are foo, bar" in str(caught.value)
    assert "--column text=NAME" in caught.value.fix
    with pytest.raises(KilotuneError, match="looks like the text"):
        load_examples(path)


def test_one_column_cannot_be_both(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nx\n")
    with pytest.raises(KilotuneError, match="cannot be both"):
        load_examples(path, text="text", label="text")


def rows(path: Path, labels: list[str]) -> Path:
    path.write_text("text,label\n" + "".join(f"t{i},{x}\n" for i, x in enumerate(labels)))
    return path


def test_labels_are_set_for_closed_labels_alone(tmp_path: Path) -> None:
    closed = load_dataset(rows(tmp_path / "a.csv", ["a", "b"] * 6))
    assert closed.task == "classify"
    assert [e.label for e in closed.examples[:2]] == ["a", "b"]
    answers = [f"a long answer in so many words: number {i} of a few" for i in range(12)]
    free = load_dataset(rows(tmp_path / "b.csv", answers))
    assert (free.task, free.examples[0].label) == ("generate", None)
    assert free.examples[0].answer == answers[0]


def test_a_task_that_is_asked_for_wins(tmp_path: Path) -> None:
    answers = [f"a long answer in so many words: number {i} of a few" for i in range(12)]
    path = rows(tmp_path / "a.csv", answers)
    forced = load_dataset(path, Reading(task="classify"))
    assert (forced.task, forced.why, forced.examples[0].label) == (
        "classify", "as asked for", answers[0],
    )  # fmt: skip
    assert [f.code for f in check_examples(forced.examples)] == ["too-many-classes"]
    assert (
        load_dataset(rows(tmp_path / "b.csv", ["a", "b"] * 6), Reading(task="generate"))
        .examples[0]
        .label
        is None
    )


def test_short_answers_of_other_formats_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"prompt": f"q{i}", "completion": f" {'ab'[i % 2]}"}) for i in range(12)]
    path.write_text("\n".join(lines))
    read = load_dataset(path)
    assert (read.format, read.task) == ("prompt-completion", "classify")
    assert [e.label for e in read.examples[:2]] == ["a", "b"]


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    text = "word " * 60
    path = tmp_path / "a.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{text}{i},{'ab'[i % 2]}\n" for i in range(100_000))
    began = time.process_time()
    assert len(load_dataset(path).examples) == 100_000
    assert time.process_time() - began < 10
