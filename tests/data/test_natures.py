"""Files without a format are called what they are, with what to do about it."""

from pathlib import Path
from typing import Any

import pytest

from kilotune.data.column_plan import Reading
from kilotune.data.normalise import load_dataset
from kilotune.errors import KilotuneError
from tests.support.wordy import words, write_rows

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        (
            lambda n: {"prompt": words(n), "chosen": "yes", "rejected": "no"},
            "preference pairs (columns 'chosen' and 'rejected')",
            "--column completion=chosen",
        ),
        (
            lambda n: {"chosen": TURNS, "rejected": TURNS},
            "preference pairs",
            "--column messages=chosen",
        ),
        (
            lambda n: {"question": words(n), "Response_A": "yes", "Response_B": "no"},
            "preference pairs (columns 'Response_A' and 'Response_B')",
            "--column completion=NAME",
        ),
        (
            lambda n: {"text": f"### Human: {words(n)}\n### Assistant: {n}"},
            "whole conversations in one text, written in a chat template already (### Human",
            '"messages"',
        ),
        (
            lambda n: {
                "text": f"<|im_start|>user\n{n}<|im_end|>\n<|im_start|>assistant\nb<|im_end|>"
            },
            "(ChatML)",
            '"messages"',
        ),
        (
            lambda n: {"data": f"<s>[INST] {words(n)} [/INST] b</s>"},
            "(Llama 2 or Mistral)",
            "turns",
        ),
        (lambda n: {"dialog": f"用户：{n}\n助手：好"}, "(Human: / Assistant:)", "turns"),
        (
            lambda n: {"id": n, "role": ("user", "assistant")[n % 2], "content": words(n)},
            "a turn in each row (columns 'role' and 'content')",
            "in one row",
        ),
        (
            lambda n: {"tokens": words(n).split(), "ner_tags": [0] * 8},
            "labels of single words or spans (column ner_tags)",
            "completion=JSON",
        ),
        (
            lambda n: {"text": words(n), "ann_1": "ab"[n % 2], "ann_2": "ab"[n // 2 % 2]},
            "labels of several annotators (columns ann_1, ann_2)",
            "--label ann_1",
        ),
        (
            lambda n: {"text": words(n), "sport": n % 3 == 0, "art": n % 3 == 1},
            "a column of yes and no for each label (sport, art)",
            "in one column",
        ),
        (lambda n: {"tokens": words(n).split(), "label": "ab"[n % 2]}, "cut into words", "joined"),
        (lambda n: {"audio": {"path": f"{n}.wav"}, "text": words(n)}, "recordings", "as text"),
        (lambda n: {"chat": f"USER: {words(n)} ASSISTANT: {n}"}, "(Human: / Assistant:)", "turns"),
        (lambda n: {"input_ids": [1, 2], "labels": [1, 2]}, "numbers of tokens", "texts"),
        (
            lambda n: {"translation": {"en": words(n), "de": words(n)}},
            "values inside objects (translation.en, translation.de)",
            "--column prompt=DATA.TEXT",
        ),
    ],
)
def test_a_file_is_called_what_it_is(row: Any, what: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(KilotuneError) as caught:
        load_dataset(write_rows(tmp_path / "a.jsonl", row, 12))
    assert what in str(caught.value)
    assert fix in caught.value.fix


@pytest.mark.parametrize("field", ["completion", "messages"])
def test_the_better_answers_are_learnt_by_the_option_that_is_named(
    field: str, tmp_path: Path
) -> None:
    def row(n: int) -> dict[str, Any]:
        chosen = TURNS if field == "messages" else f"yes {n}"
        asked = {} if field == "messages" else {"prompt": words(n)}
        return {**asked, "chosen": chosen, "rejected": words(n, 30, "no")}

    path = write_rows(tmp_path / "a.jsonl", row)
    data = load_dataset(path, Reading(columns={field: "chosen"}))
    assert data.examples[0].answer == ("a" if field == "messages" else "yes 0")
    assert data.findings == ()
