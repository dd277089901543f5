"""Exports of tools for labelling: read as plain rows, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.data.normalise import Dataset, load_dataset
from kilotune.errors import KilotuneError
from tests.support.wordy import words, write_rows


def studio(n: int, *choices: str, cancelled: bool = False, kind: str = "choices") -> dict[str, Any]:
    """A task of Label Studio, an annotation for each choice."""
    return {
        "id": n,
        "data": {"review": words(n)},
        "annotations": [
            {
                "was_cancelled": cancelled,
                "result": [{"type": kind, "from_name": "mood", "value": {kind: [choice]}}],
            }
            for choice in choices
        ],
        "predictions": [],
    }


def argilla(n: int, label: str, *states: str) -> dict[str, Any]:
    said = [{"value": label, "user_id": str(k), "status": s} for k, s in enumerate(states)]
    return {"id": str(n), "fields": {"text": words(n)}, "responses": {"mood": said}, "metadata": {}}


def read(tmp_path: Path, row: Any, count: int = 20) -> Dataset:
    return load_dataset(write_rows(tmp_path / "a.jsonl", row, count))


def pairs(data: Dataset) -> list[tuple[str, str | None]]:
    return [(example.text, example.answer) for example in data.examples]


LABELLED = [(words(n), "xy"[n % 2]) for n in range(20)]


@pytest.mark.parametrize(
    "row",
    [
        lambda n: studio(n, "xy"[n % 2]),
        lambda n: studio(n, "xy"[n % 2], "xy"[n % 2]),
        lambda n: argilla(n, "xy"[n % 2], "submitted"),
        lambda n: argilla(n, "xy"[n % 2], "discarded", "submitted"),
        lambda n: {"text": words(n), "accept": ["xy"[n % 2]], "options": [], "_task_hash": n},
        lambda n: {
            "source": words(n), "job": n % 2, "job-metadata": {"class-name": "xy"[n % 2]},
        },
        lambda n: {
            "textContent": words(n), "classificationAnnotation": {"displayName": "xy"[n % 2]},
        },
        lambda n: {"id": n, "text": words(n), "label": ["xy"[n % 2]]},
    ],
)  # fmt: skip
def test_labels_of_each_tool_are_read(row: Any, tmp_path: Path) -> None:
    data = read(tmp_path, row)
    assert pairs(data) == LABELLED
    assert (data.task, data.findings[0].code) == ("classify", "export-read")


def test_annotators_who_differ_leave_no_label(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: studio(n, "x", "y" if n == 3 else "x"))
    assert [example.id for example in data.examples if example.label is None] == ["data:4"]


def test_what_was_skipped_is_named(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: studio(n, "xy"[n % 2], cancelled=n == 5))
    (said,) = [f for f in data.findings if f.code == "unread-verdict"]
    assert (said.rows, said.values["option"]) == (("data:6",), "--keep was_cancelled=false")


def test_discarded_responses_are_named(tmp_path: Path) -> None:
    state = {True: "discarded", False: "submitted"}
    data = read(tmp_path, lambda n: argilla(n, "xy"[n % 2], state[n == 5]))
    assert [f.rows for f in data.findings if f.code == "unread-verdict"] == [("data:6",)]


def test_contents_of_gemini_are_conversations(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {
            "systemInstruction": {"parts": [{"text": "Be "}, {"text": "brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": words(n)}]},
                {"role": "model", "parts": [{"text": str(n)}]},
            ],
        }

    (example, *_) = read(tmp_path, row).examples
    assert [(m.role, m.content) for m in example.messages] == [
        ("system", "Be brief."), ("user", words(0)), ("assistant", "0"),
    ]  # fmt: skip


def test_questions_of_squad_have_their_context(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {
            "id": str(n), "title": "t", "context": words(n, 20), "question": f"{n}?",
            "answers": {"text": [words(n, 2)], "answer_start": [0]},
        }  # fmt: skip

    data = read(tmp_path, row)
    assert pairs(data)[0] == (f"context: {words(0, 20)}\nquestion: 0?", words(0, 2))


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (
            lambda n: studio(n, "x", kind="labels"),
            "Label Studio's full JSON, of which kilotune does not read annotations of the kind "
            "'labels'",
            "JSON-MIN or CSV",
        ),
        (
            lambda n: {"text": words(n), "spans": [{"start": 0}], "_task_hash": n},
            "Prodigy's export, of which kilotune does not read spans",
            "textcat",
        ),
        (
            lambda n: {"contents": [{"role": "user", "parts": [{"fileData": {}}]}]},
            "Gemini's contents, of which kilotune does not read parts that are no texts",
            "Leave rows",
        ),
    ],
)
def test_other_kinds_of_work_are_refused_by_name(
    row: Any, what: str, fix: str, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError) as caught:
        read(tmp_path, row)
    assert what in str(caught.value)
    assert fix in caught.value.fix
