from pathlib import Path

import pytest

from kilotune.data.normalise import load_examples
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
    assert "--text" in caught.value.fix
    with pytest.raises(KilotuneError, match="looks like the text"):
        load_examples(path)


def test_one_column_cannot_be_both(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\nx\n")
    with pytest.raises(KilotuneError, match="cannot be both"):
        load_examples(path, text="text", label="text")
