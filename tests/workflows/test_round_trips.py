"""A thousand rows of each usual file through check, render, and convert there and back."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kilotune.data.conversion import convert
from kilotune.data.example import Message
from kilotune.data.files.writers import write_table
from kilotune.data.normalise import load_dataset
from kilotune.preparation.inspection import check
from kilotune.recipe.load import load_recipe
from kilotune.workflows.render import Preview, render
from tests.support.tiny import byte_tokenizer
from tests.support.wordy import WORDS

ROWS = 1_000
Row = dict[str, Any]


class Writer:
    """Draws what rows say: words, with signs that formats and files stumble over between them."""

    ODD = (
        '"quoted, twice"',
        "a\nline",
        "x;y\tz",
        "好的，",
        "é",
        "[1, 2]",
        '{"a": 1}',
        "=1+1",
        "<3",
    )

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)

    def text(self, count: int = 12) -> str:
        said = self.rng.choices(WORDS, k=count)
        if self.rng.random() < 0.3:
            said.insert(self.rng.randrange(1, count), self.rng.choice(self.ODD))
        return f"{' '.join(said)} {self.rng.random():.12f}"

    def turns(self, role: str, said: str, names: tuple[str, str], answers: int) -> list[Row]:
        return [{role: who, said: self.text()} for _ in range(answers) for who in names]


def text_label(w: Writer) -> Row:
    return {"text": w.text(), "label": w.rng.choice(("good", "bad", "so, so"))}


def prompt_completion(w: Writer) -> Row:
    return {"prompt": w.text(), "completion": w.text()}


def alpaca(w: Writer) -> Row:
    return {"instruction": w.text(6), "input": w.rng.choice(("", w.text())), "output": w.text()}


def sharegpt(w: Writer) -> Row:
    turns = w.turns("from", "value", ("human", "gpt"), w.rng.randint(1, 3))
    return {"conversations": turns, "system": w.text(4)}


def openai(w: Writer) -> Row:
    system = [{"role": "system", "content": w.text(4)}] if w.rng.random() < 0.5 else []
    turns = w.turns("role", "content", ("user", "assistant"), w.rng.randint(1, 3))
    return {"messages": system + turns}


def llava(w: Writer) -> Row:
    turns = w.turns("from", "value", ("human", "gpt"), 1)
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"image": "p.png", "conversations": turns}


def qwen_vl(w: Writer) -> Row:
    turns = w.turns("from", "value", ("user", "assistant"), 1)
    turns[0]["value"] = f"Picture 1: <img>p.png</img>\n{turns[0]['value']}"
    return {"conversations": turns}


def query_response(w: Writer) -> Row:
    pairs = [[w.text(), w.text()] for _ in range(w.rng.randint(0, 2))]
    return {"query": w.text(), "response": w.text(), "history": pairs}


def label_studio(w: Writer) -> Row:
    number = w.rng.randrange(10**9)
    return {
        "annotation_id": number, "annotator": 1, "created_at": "2024-05-01T10:00:00.123456Z",
        "id": number + 1, "lead_time": w.rng.random() * 9, "text": w.text(),
        "sentiment": w.rng.choice(("Positive", "Negative", "Neutral")),
        "updated_at": "2024-05-02T10:00:00.123456Z",
    }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A kind of file: its rows, its name, and the format that it is converted back to."""

    row: Callable[[Writer], Row]
    file: str
    back: str


CASES = {
    "text/label": Case(text_label, "a.csv", "text-label"),
    "prompt/completion": Case(prompt_completion, "a.jsonl", "prompt-completion"),
    "Alpaca": Case(alpaca, "a.json", "alpaca"),
    "ShareGPT": Case(sharegpt, "a.json", "sharegpt"),
    "OpenAI messages": Case(openai, "a.jsonl", "messages"),
    "LLaVA": Case(llava, "a.json", "llava"),
    "Qwen-VL": Case(qwen_vl, "a.json", "llava"),
    "query/response": Case(query_response, "a.jsonl", "query-response"),
    "Label Studio": Case(label_studio, "a.csv", "text-label"),
    "datasets": Case(openai, "saved", "messages"),
}
PICTURED = ("LLaVA", "Qwen-VL")


def written(case: Case, folder: Path, seed: int, count: int) -> Path:
    writer = Writer(seed)
    rows = [case.row(writer) for _ in range(count)]
    path = folder / case.file
    if case.file == "saved":
        from datasets import Dataset

        Dataset.from_list(rows).save_to_disk(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    else:
        write_table(path, tuple(rows[0]), rows)
    Image.new("RGB", (8, 8)).save(folder / "p.png")
    return path


def rendered(path: Path, model: Path) -> Preview:
    data = {"train": str(path), "max_length": 4096}
    return render(load_recipe(settings={"data": data, "model": {"name": str(model)}}))


def messages(path: Path) -> list[tuple[Message, ...]]:
    data = load_dataset(path)
    assert [f for f in data.findings if f.severity != "note"] == []
    return [example.messages for example in data.examples]


def there_and_back(case: Case, path: Path) -> None:
    """Converted to every kind of file on the way: nothing is lost."""
    said = messages(path)
    for middle in ("m.jsonl", "m.parquet", "m.json.gz"):
        convert(path, path.parent / middle, to="messages")
        assert plain(messages(path.parent / middle)) == plain(said)
        convert(path.parent / middle, path.parent / f"b-{middle}", to=case.back)
        assert plain(messages(path.parent / f"b-{middle}")) == plain(said)


def plain(talks: list[tuple[Message, ...]]) -> list[list[tuple[str, tuple[Any, ...]]]]:
    """Conversations for comparison: spaces around a text are no part of it."""
    return [
        [(m.role, tuple(p.strip() if isinstance(p, str) else p for p in m.parts)) for m in talk]
        for talk in talks
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_thousand_rows_go_all_the_way_without_a_loss(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = written(case, tmp_path, 0, ROWS)
    assert len(messages(path)) == ROWS
    inspection = check([path])
    assert inspection.examples == {"data": ROWS}
    assert [f for f in inspection.findings if f.severity != "note"] == []
    there_and_back(case, path)


@pytest.mark.parametrize("name", [name for name in CASES if name not in PICTURED])
def test_a_thousand_rows_are_rendered(name: str, tmp_path: Path) -> None:
    path = written(CASES[name], tmp_path, 0, ROWS)
    byte_tokenizer().save_pretrained(tmp_path / "model")
    seen = rendered(path, tmp_path / "model")
    assert len(seen.rendered.renderings) == ROWS
    assert [f for f in seen.findings if f.severity == "error"] == []
    assert all(rendering.trained for rendering in seen.rendered.renderings)


@pytest.mark.parametrize("name", PICTURED)
def test_pictured_rows_are_rendered(name: str, tmp_path: Path) -> None:
    from tests.support.tiny_vision import write_kind

    path = written(CASES[name], tmp_path, 0, 60)
    model = write_kind("qwen2_vl", tmp_path / "model")
    seen = rendered(path, model)
    assert len(seen.rendered.renderings) == 60
    assert [f for f in seen.findings if f.severity == "error"] == []
    assert all(len(rendering.images) == 1 for rendering in seen.rendered.renderings)


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_any_rows_go_there_and_back(
    name: str, seed: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("way")
    there_and_back(CASES[name], written(CASES[name], folder, seed, count))
