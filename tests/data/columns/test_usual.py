"""Which columns are read: by usual names, by what belongs together, by what they hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kilotune.data.column_plan import Reading
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.errors import KilotuneError
from tests.support.wordy import words, write_rows

Row = Callable[[int], dict[str, Any]]


def read(tmp_path: Path, row: Row, count: int = 40, **options: Any) -> Dataset:
    return load_dataset(write_rows(tmp_path / "a.jsonl", row, count), Reading(**options))


def first(tmp_path: Path, row: Row, **options: Any) -> tuple[str, str | None]:
    example = read(tmp_path, row, **options).examples[0]
    return example.text, example.answer


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("文本", "标签"), ("内容", "类别"), ("评论", "情感"), ("Nachricht", "Kategorie"),
        ("Body", "Topic"), ("message", "intent"),
    ],
)  # fmt: skip
def test_usual_names_of_texts_and_labels_are_known(text: str, label: str, tmp_path: Path) -> None:
    row = first(tmp_path, lambda n: {label: "ab"[n % 2], "n": n, text: words(n)})
    assert row == (words(0), "a")


@pytest.mark.parametrize(
    ("asked", "said"),
    [("问题", "答案"), ("问", "答"), ("提问", "回复"), ("Frage", "Antwort"), ("query", "answer")],
)
def test_usual_names_of_questions_and_answers_are_known(
    asked: str, said: str, tmp_path: Path
) -> None:
    data = read(tmp_path, lambda n: {asked: words(n), said: f"{words(n, of='said')} {n}"})
    assert (data.title, data.task) == ("prompt/completion rows", "generate")
    assert data.examples[1].text == words(1)


def test_chinese_instructions_are_alpaca(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: {"指令": "译", "输入": words(n), "输出": f"{n}"})
    assert data.examples[2].text == f"译\n{words(2)}"


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("title", "body"), "title: {0}\nbody: {1}"),
        (("description", "title"), "title: {1}\ndescription: {0}"),
        (("Subject", "Message"), "Subject: {0}\nMessage: {1}"),
        (("标题", "正文"), "标题: {0}\n正文: {1}"),
        (("premise", "hypothesis"), "premise: {0}\nhypothesis: {1}"),
        (("sentence1", "sentence2"), "sentence1: {0}\nsentence2: {1}"),
        (("text_a", "text_b"), "text_a: {0}\ntext_b: {1}"),
        (("question 1", "question 2"), "question 1: {0}\nquestion 2: {1}"),
    ],
)
def test_texts_that_belong_together_are_one(
    names: tuple[str, str], shown: str, tmp_path: Path
) -> None:
    one, two = words(0, 6, "one"), words(0, 9, "two")

    def row(n: int) -> dict[str, Any]:
        cells = words(n, 6, "one"), words(n, 9, "two")
        return {**dict(zip(names, cells, strict=True)), "category": "ab"[n % 2]}

    assert first(tmp_path, row) == (shown.format(one, two), "a")
    data = read(tmp_path, row)
    assert {f.code for f in data.findings} == {"columns-found"}
    assert set(data.chosen) == {"text"}


@pytest.mark.parametrize("name", ["context", "Passage", "document", "上下文", "background"])
def test_a_context_stands_before_its_question(name: str, tmp_path: Path) -> None:
    said = first(
        tmp_path,
        lambda n: {"question": f"What of {n}?", name: words(n, 30), "answer": words(n, 2, "said")},
    )
    assert said == (f"{name}: {words(0, 30)}\nquestion: What of 0?", words(0, 2, "said"))


def test_passages_and_objects_of_a_context_are_lines(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        passages = [{"title": f"T{n}", "sentences": [words(n, 5), words(n, 5, "b")]}, words(n, 3)]
        return {"question": f"What of {n}?", "passages": passages, "answer": f"{n}"}

    text, _ = first(tmp_path, row)
    lines = ["passages: T0", words(0, 5), words(0, 5, "b"), words(0, 3), "question: What of 0?"]
    assert text.splitlines() == lines


def test_an_empty_context_leaves_no_name(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        lambda n: {"question": f"{n}?", "context": words(n) if n else "", "answer": f"{n} {n}"},
    )
    assert data.examples[0].text == "question: 0?"


def test_a_context_that_the_prompt_holds_already_is_not_said_twice(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        lambda n: {"context": words(n), "prompt": f"{words(n)}\nAnd?", "completion": f"{n} {n}"},
    )
    assert data.examples[0].text == f"{words(0)}\nAnd?"
    assert data.findings == ()


def test_columns_called_text_and_label_are_meant_alone(tmp_path: Path) -> None:
    data = read(
        tmp_path, lambda n: {"title": words(n, 5, "t"), "text": words(n, 12), "label": "ab"[n % 2]}
    )
    assert data.examples[0].text == words(0, 12)
    assert [f.code for f in data.findings] == ["unread-text"]


def test_columns_without_usual_names_are_told_by_what_they_hold(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        lambda n: {
            "Ticket": n,
            "Opened": f"2024-01-{n % 28 + 1:02}",
            "Agent": f"agent {n}",
            "Gemeldet": words(n, 20),
            "Warteschlange": ("Netz", "Drucker", "Konto")[n % 3],
        },
    )
    assert data.chosen == {"text": "Gemeldet", "label": "Warteschlange"}
    assert (data.examples[0].text, data.examples[0].label) == (words(0, 20), "Netz")


def test_a_guess_that_is_not_sure_is_asked_for(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {"Gemeldet": words(n, 20), "Stadt": "ABC"[n % 3], "Farbe": "xyz"[n // 3 % 3]}

    with pytest.raises(KilotuneError, match="the label of text and label columns"):
        read(tmp_path, row)
    assert read(tmp_path, row, label="Farbe").chosen == {"text": "Gemeldet"}


def test_several_columns_are_joined_in_the_order_given(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {
            "a": words(n, 3),
            "b": None if n == 1 else [words(n, 2, "b")],
            "c": n,
            "y": "kl"[n % 2],
        }

    data = read(tmp_path, row, text=("c", "b", "a"), label="y")
    assert data.examples[2].text == f"c: 2\nb: {words(2, 2, 'b')}\na: {words(2, 3)}"
    assert data.examples[1].text == f"c: 1\na: {words(1, 3)}"
    assert data.unused == ()


def test_a_column_is_read_once(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="cannot be both"):
        read(tmp_path, lambda n: {"a": words(n), "y": "b"}, text=("a", "y"), label="y")


def test_every_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match=r"no column 'Subjekt', 'Bodi'.*Did you mean 'Subject'"):
        read(
            tmp_path,
            lambda n: {"Subject": words(n), "Body": words(n), "y": "a"},
            text=("Subjekt", "Bodi"),
            label="y",
        )


def test_paths_lead_into_objects(tmp_path: Path) -> None:
    data = read(
        tmp_path,
        lambda n: {"translation": {"en": words(n), "de": f"{words(n, of='de')}"}},
        columns={"prompt": "translation.en", "completion": "translation.de"},
    )
    assert (data.examples[3].text, data.examples[3].answer) == (words(3), words(3, of="de"))
    assert data.unused == ()


def test_pictures_by_their_files_names_need_no_text(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: {"filename": f"p{n}.jpg", "category": "ab"[n % 2]})
    assert [image.source for image in data.examples[0].images] == ["p0.jpg"]


@pytest.mark.parametrize(
    ("picture", "said"),
    [("image", "caption"), ("file_name", "text"), ("filename", "caption"), ("图片", "图说")],
)
def test_captions_are_answers_to_one_question(picture: str, said: str, tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: {picture: f"p{n}.png", said: words(n), "width": 640})
    (message, answer) = data.examples[0].messages
    assert (message.text, message.images[0].source) == ("Describe the picture.", "p0.png")
    assert answer.content == words(0)
    assert "caption-prompt" in {finding.code for finding in data.findings}


def test_pictures_with_labels_or_questions_are_no_captions(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {"file_name": f"{n}.png", "caption": words(n), "category": "ab"[n % 2]}

    assert read(tmp_path, row).examples[0].answer == words(0)
    labelled = read(tmp_path, row, text="caption", label="category")
    assert (labelled.format, labelled.examples[0].label) == ("text-label", "a")
    data = read(tmp_path, lambda n: {"image": f"{n}.png", "text": words(n), "label": "ab"[n % 2]})
    assert (data.format, data.examples[0].label) == ("text-label", "a")
    data = read(tmp_path, lambda n: {"image": f"{n}.png", "question": f"{n}?", "answer": words(n)})
    assert data.examples[0].text == "0?"


@pytest.mark.parametrize(
    ("row", "chosen"),
    [
        (
            lambda n: {
                "review_title": words(n, 4, "t"), "review_body": words(n), "mood": "ab"[n % 2],
            },
            {"text": ("review_title", "review_body"), "label": "mood"},
        ),
        (
            lambda n: {"review": words(n), "stars": n % 5 + 1, "lang": ("en", "de")[n % 2]},
            {"label": "stars"},
        ),
        (
            lambda n: {
                "qid1": n, "qid2": n + 1, "question1": words(n, 5, "1"),
                "question2": words(n, 5, "2"), "is_duplicate": n % 2,
            },
            {"text": ("question1", "question2"), "label": "is_duplicate"},
        ),
        (
            lambda n: {"From": f"u{n % 4}@x.org", "Message": words(n), "Folder": "xyz"[n % 3]},
            {"label": "Folder"},
        ),
        (
            lambda n: {"article": words(n, 40), "highlights": words(n, 8, "h"), "id": n},
            {"prompt": "article", "completion": "highlights"},
        ),
    ],
)  # fmt: skip
def test_files_of_well_known_shapes_are_read(
    row: Row, chosen: dict[str, Any], tmp_path: Path
) -> None:
    assert read(tmp_path, row).chosen == chosen


def test_where_a_text_comes_from_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="looks like the label"):
        read(tmp_path, lambda n: {"text": words(n), "language": ("en", "de")[n % 2]})
