"""Every schema read from its usual form, and every fault in one named with its rows."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kilotune.data.column_plan import Reading
from kilotune.data.example import Image, Message
from kilotune.data.files.writers import write_table
from kilotune.data.finding import Finding
from kilotune.data.formats import FORMATS
from kilotune.data.normalise import Dataset, load_dataset, load_examples
from kilotune.data.turns import inline_images
from kilotune.errors import KilotuneError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
Turns = list[tuple[str, Any]]


def dataset(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> Dataset:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answered = options.pop("answered", True)
    return load_dataset(path, Reading(**options), answered=answered)


def turns(tmp_path: Path, *rows: dict[str, Any], **options: Any) -> tuple[str, Turns]:
    """The detected title, and the first example's turns."""
    read = dataset(tmp_path, *rows, **options)
    assert read.findings == ()
    return read.title, [(m.role, m.content) for m in read.examples[0].messages]


def found(read: Dataset) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(f.code, f.severity, f.rows) for f in read.findings]


QA: Turns = [("user", "q"), ("assistant", "a")]
CHAT: Turns = [("system", "s"), ("user", "q1"), ("assistant", "a1"), *QA]


@pytest.mark.parametrize(
    ("row", "title", "expected"),
    [
        ({"text": " q ", "label": "a"}, "text and label columns", QA),
        ({"Review": "q", "Sentiment": "a"}, "text and label columns", QA),
        ({"text": "q", "label": "a", "question": "x", "answer": "y"}, "text and label columns", QA),
        ({"prompt": "q", "completion": "a"}, "prompt/completion rows", QA),
        ({"prompt": "q", "response": "a"}, "prompt/completion rows", QA),
        ({"question": "q", "answer": "a"}, "prompt/completion rows", QA),
        ({"input": "q", "output": "a"}, "prompt/completion rows", QA),
        (
            {
                "prompt": [
                    {"role": "system", "content": "s"}, {"role": "user", "content": "q1"},
                    {"role": "assistant", "content": "a1"}, {"role": "user", "content": "q"},
                ],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            "prompt/completion rows",
            CHAT,
        ),
        ({"instruction": "q", "input": "", "output": "a"}, "Alpaca instructions", QA),
        (
            {"instruction": "do", "input": "this", "output": "a"},
            "Alpaca instructions",
            [("user", "do\nthis"), ("assistant", "a")],
        ),
        (
            {"instruction": "q", "output": "a", "system": "s", "history": [["q1", "a1"]]},
            "Alpaca instructions",
            CHAT,
        ),
        ({"instruction": "q", "context": "", "response": "a"}, "Alpaca instructions", QA),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "ShareGPT conversations",
            QA,
        ),
        (
            {
                "system": "s",
                "conversations": [
                    {"from": "user", "value": "q1"}, {"from": "chatgpt", "value": "a1"},
                    {"from": "Human", "value": "q"}, {"from": "bing", "value": "a"},
                ],
            },
            "ShareGPT conversations",
            CHAT,
        ),
        (
            {
                "conversations": [
                    {"role": "user", "content": "q"}, {"role": "model", "content": "a"},
                ]
            },
            "ShareGPT conversations",
            QA,
        ),
        (
            {"messages": [{"from": "human", "value": "q"}, {"from": "bard", "value": "a"}]},
            "ShareGPT conversations",
            QA,
        ),
        (
            {
                "messages": [
                    {"role": "developer", "content": "s"}, {"role": "user", "content": "q1"},
                    {"role": "assistant", "content": "a1"},
                    {"role": "user", "content": [{"type": "text", "text": "q"}]},
                    {"role": "assistant", "content": ["a"]},
                ]
            },
            "OpenAI messages",
            CHAT,
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "q"},
                            {"type": "image_url", "image_url": {"url": URI}},
                            {"type": "image_url", "image_url": "x.png"},
                            {"type": "image", "image": "y.png"},
                        ],
                    },
                    {"role": "assistant", "content": "a"},
                ]
            },
            "OpenAI messages",
            [
                ("user", ("q", Image("", data=PNG), Image("x.png", "DIR"), Image("y.png", "DIR"))),
                ("assistant", "a"),
            ],
        ),
        (
            {
                "image": "x.png",
                "conversations": [
                    {"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"},
                ],
            },
            "LLaVA or Qwen-VL conversations with images",
            [("user", (Image("x.png", "DIR"), "\nq")), ("assistant", "a")],
        ),
        (
            {
                "images": ["x.png", URI],
                "messages": [
                    {"role": "user", "content": "one <image> two <image>"},
                    {"role": "assistant", "content": "a"},
                ],
            },
            "LLaVA or Qwen-VL conversations with images",
            [
                ("user", ("one ", Image("x.png", "DIR"), " two ", Image("", data=PNG))),
                ("assistant", "a"),
            ],
        ),
        (
            {
                "images": ["x.png"],
                "messages": [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
                    {"role": "assistant", "content": "a"},
                ],
            },
            "LLaVA or Qwen-VL conversations with images",
            [("user", (Image("x.png", "DIR"), "q")), ("assistant", "a")],
        ),
        (
            {
                "conversations": [
                    {"from": "user", "value": "Picture 1: <img>x.png</img>\nq"},
                    {"from": "assistant", "value": "a"},
                ]
            },
            "LLaVA or Qwen-VL conversations with images",
            [("user", ("Picture 1: ", Image("x.png", "DIR"), "\nq")), ("assistant", "a")],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"image": "file:///x.png"}, {"text": "q"}]},
                    {"role": "assistant", "content": "a"},
                ]
            },
            "LLaVA or Qwen-VL conversations with images",
            [("user", (Image("/x.png", "DIR"), "q")), ("assistant", "a")],
        ),
        ({"query": "q", "response": "a"}, "query/response rows", QA),
        (
            {"query": "q", "response": "a", "system": "s", "history": [["q1", "a1"]]},
            "query/response rows",
            CHAT,
        ),
        (
            {"query": "<image>q", "response": "a", "images": ["x.png"]},
            "query/response rows",
            [("user", (Image("x.png", "DIR"), "q")), ("assistant", "a")],
        ),
        (
            {"query": "q", "response": "a", "images": ["x.png", "y.png"]},
            "query/response rows",
            [("user", (Image("x.png", "DIR"), Image("y.png", "DIR"), "q")), ("assistant", "a")],
        ),
        (
            {"text": "q", "label": "a", "image": "x.png"},
            "text and label columns",
            [("user", (Image("x.png", "DIR"), "q")), ("assistant", "a")],
        ),
        (
            {"prompt": "q", "completion": "a", "image": base64.b64encode(PNG).decode()},
            "prompt/completion rows",
            [("user", (Image("", data=PNG), "q")), ("assistant", "a")],
        ),
    ],
)  # fmt: skip
def test_each_schema_is_recognised_and_read(
    tmp_path: Path, row: dict[str, Any], title: str, expected: Turns
) -> None:
    def here(content: Any) -> Any:
        if isinstance(content, str):
            return content
        return tuple(
            Image(p.source, str(tmp_path)) if isinstance(p, Image) and p.folder else p
            for p in content
        )

    expected = [(role, here(content)) for role, content in expected]
    assert turns(tmp_path, row) == (title, expected)


@pytest.mark.parametrize("kind", ["csv", "tsv", "xlsx", "parquet", "json", "jsonl.gz"])
def test_nested_columns_are_read_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    row = {
        "conversations": [
            {"from": "human", "value": "<image>é, 好"},
            {"from": "gpt", "value": "a"},
        ],
        "images": ["x.png"],
        "system": "s",
    }
    write_table(path, tuple(row), [row, row])
    read = load_dataset(path)
    assert (read.format, read.findings, len(read.examples)) == ("llava", (), 2)
    assert read.examples[0].messages == (
        Message("system", "s"),
        Message("user", (Image("x.png", str(tmp_path)), "é, 好")),
        Message("assistant", "a"),
    )


def test_conversations_of_saved_datasets_are_read_however_they_were_nested(tmp_path: Path) -> None:
    from datasets import Dataset as HubDataset

    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    # As `datasets` stores a Sequence of a dict.
    lists = {"from": ["human", "gpt"], "value": ["q", "a"]}
    for name, cell in (("list", talk), ("dict", lists)):
        HubDataset.from_dict({"conversations": [cell, cell]}).save_to_disk(tmp_path / name)
        read = load_dataset(tmp_path / name)
        assert (read.format, read.findings) == ("sharegpt", ())
        assert [(m.role, m.content) for m in read.examples[1].messages] == QA


def test_images_are_looked_for_beside_their_own_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    row = {"text": "q", "label": "a", "image": "x.png"}
    write_table(tmp_path / "sub" / "a.csv", tuple(row), [row])
    (tmp_path / "sub" / "x.png").write_bytes(PNG)
    (example,) = load_dataset(tmp_path).examples
    assert example.id == "data:sub/a.csv:2"
    assert (example.origin.file, example.origin.row) == ("sub/a.csv", 2)
    assert example.images[0].path.read_bytes() == PNG


def test_files_of_a_folder_may_be_in_different_formats(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ("text", "label"), [{"text": "q", "label": "a"}])
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    write_table(tmp_path / "b.jsonl", ("messages",), [row])
    read = load_dataset(tmp_path)
    assert read.format == "text-label, messages"
    assert read.title == "text and label columns, OpenAI messages"
    assert [[m.text for m in example.messages] for example in read.examples] == [["q", "a"]] * 2


# ---- overriding


def test_a_column_mapping_names_what_is_called_otherwise(tmp_path: Path) -> None:
    row = {"Frage": "q", "Antwort": "a", "Thema": "t", "id": 1}
    options = {"columns": {"prompt": "Frage", "completion": "Antwort"}, "group": "Thema"}
    read = dataset(tmp_path, row, **options)
    assert (read.format, read.unused) == ("prompt-completion", ("id",))
    (example,) = read.examples
    assert (example.text, example.answer, example.group) == ("q", "a", "t")


def test_a_column_that_is_given_to_one_field_is_no_other_one(tmp_path: Path) -> None:
    row = {"system": "q", "completion": "a"}
    read = dataset(tmp_path, row, columns={"prompt": "system"})
    assert [(m.role, m.content) for m in read.examples[0].messages] == QA


def test_half_characters_in_json_cells_are_named(tmp_path: Path) -> None:
    cell = '[{"role": "user", "content": "\\ud800"}]'
    write_table(tmp_path / "a.csv", ("messages",), [{"messages": cell}])
    read = load_dataset(tmp_path / "a.csv", Reading(format="messages"))
    assert found(read) == [("bad-json-cell", "error", ("data:2",))]


def test_a_format_that_is_given_wins(tmp_path: Path) -> None:
    row = {"instruction": "i", "input": "q", "output": "a"}
    assert dataset(tmp_path, row).format == "alpaca"
    read = dataset(tmp_path, row, format="prompt-completion")
    assert [m.content for m in read.examples[0].messages] == ["q", "a"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "csv"}, "no format 'csv'. Choose one of: auto, llava"),
        ({"columns": {"prompt": "qestion"}}, "no column 'qestion'; the columns are question, kind"),
        ({"columns": {"prompt": "qestion"}}, "Did you mean 'question'? Name one with --column"),
        ({"columns": {"prompt": "question"}}, "looks like the completion of prompt/completion"),
        ({"columns": {"body": "kind"}}, "text and label columns have no field 'body'"),
        ({"columns": {"body": "kind", "head": "kind"}}, "have no field 'body', 'head', but"),
        ({"columns": {"text": "a", "label": "b"}}, "no column 'a', 'b'; the columns are"),
        ({"text": "a", "label": "b"}, "Name them with --column text=NAME --column label=NAME"),
        ({"columns": {"question": "prompt"}}, "first: --column prompt=question"),
        ({"format": "alpaca"}, "looks like the instruction or the output of Alpaca instructions"),
        ({"format": "alpaca"}, "with --column instruction=NAME --column output=NAME"),
        ({"columns": {"text": "kind", "label": "kind"}}, "cannot be both text and label"),
        ({"group": "thread"}, "no column 'thread'"),
        ({}, "no column that looks like the label of text and label columns"),
    ],
)
def test_wrong_overrides_name_what_there_is(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError) as caught:
        dataset(tmp_path, {"question": "q", "kind": "k"}, **options)
    assert words in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        "A warm and funny film,positive\nA dull one,negative\n",
        "A warm film,positive\nA dull one,negative\nA fine one,positive\n",
    ],
)
def test_a_first_row_of_data_is_said_to_be_no_header(content: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_text(content)
    for options in ({}, {"text": "text"}):
        with pytest.raises(KilotuneError, match="the first row seems to be data") as caught:
            load_dataset(path, Reading(**options))
        assert "--column" in caught.value.fix or caught.value.fix.endswith("such as text,label")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"prompt": "q", "completion": {"a": [1, "é"]}}, '{"a": [1, "é"]}'),
        ({"prompt": "q", "completion": [{"name": "x"}]}, '[{"name": "x"}]'),
        ({"prompt": "q", "completion": []}, None),
        ({"instruction": "q", "output": {"a": None}}, '{"a": null}'),
        ({"query": "q", "response": {"a": True}}, '{"a": true}'),
        ({"text": "q", "label": {"a": 1}}, '{"a": 1}'),
    ],
)
def test_answers_that_are_objects_are_json_answers(
    row: dict[str, Any], answer: str | None, tmp_path: Path
) -> None:
    read = dataset(tmp_path, row, row)
    assert (read.findings, read.examples[0].answer) == ((), answer)
    assert read.task == ("extract" if answer else "generate")


def test_new_texts_need_no_answers(tmp_path: Path) -> None:
    for row, form in (
        ({"sentence": "q"}, "text-label"),
        ({"prompt": "q"}, "prompt-completion"),
        ({"query": "q", "id": 1}, "query-response"),
        ({"instruction": "q"}, "alpaca"),
    ):
        read = dataset(tmp_path, row, answered=False, columns={})
        assert (read.format, read.findings) == (form, ())
        assert [(m.role, m.content) for m in read.examples[0].messages] == [("user", "q")]
    read = dataset(tmp_path, {"q": "q"}, answered=False, text="q", label="gone")
    assert read.examples[0].text == "q"


# ---- faults


def conversation(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


GOOD = conversation(("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("bad", "code", "words"),
    [
        ({"other": 1}, "missing-field", "'messages'"),
        ({"messages": 3}, "wrong-type", "a conversation that is a number"),
        ({"messages": {"role": "user"}}, "wrong-type", "a conversation that is an object"),
        ({"messages": "[{'role': 'user'}]"}, "bad-json-cell", "'messages'"),
        ({"messages": ["hello"]}, "wrong-type", "a turn that is no object"),
        ({"messages": [{"role": 1, "content": "x"}]}, "wrong-type", "a role that is a number"),
        ({"messages": [{"role": None, "content": "x"}]}, "wrong-type", "a role that is null"),
        ({"messages": [{"role": "user"}]}, "missing-field", "'content' of a turn"),
        (conversation(("robot", "x")), "unknown-role", "'robot'"),
        (conversation(("user", 5)), "wrong-type", "a turn's content that is a number"),
        (conversation(("user", [5])), "wrong-type", "a content part that is a number"),
        (conversation(("user", [{"type": "text"}])), "wrong-type", "without a text"),
        (conversation(("user", [{"type": "video", "video": "v"}])), "wrong-type", "'video'"),
        (
            conversation(("user", [{"type": "image_url", "image_url": {"url": "https://x/y"}}])),
            "remote-image",
            "'https://x/y'",
        ),
        (
            conversation(("user", [{"type": "image", "image": "data:image/png;base64,@@"}])),
            "bad-image-data",
            "not base64",
        ),
        (conversation(("user", [{"type": "image", "image": 7}])), "wrong-type", "an image that"),
    ],
)
def test_faulty_rows_are_named_and_left_out(
    bad: dict[str, Any], code: str, words: str, tmp_path: Path
) -> None:
    read = dataset(tmp_path, GOOD, bad, GOOD, bad)
    assert found(read) == [(code, "error", ("data:2", "data:4"))]
    assert words in read.findings[0].message
    assert [example.id for example in read.examples] == ["data:1", "data:3"]
    with pytest.raises(KilotuneError, match="data:2, data:4"):
        load_examples(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("good", "bad", "code"),
    [
        ({"text": "q", "label": "a"}, {"label": "a"}, "missing-field"),
        ({"text": "q", "label": "a"}, {"text": ["q"], "label": "a"}, "wrong-type"),
        ({"text": "q", "label": "a"}, {"text": "q", "label": ["a", "b"]}, "wrong-type"),
        ({"prompt": "q", "completion": "a"}, {"completion": "a"}, "missing-field"),
        ({"prompt": "q", "completion": "a"}, {"prompt": {"a": 1}}, "wrong-type"),
        ({"instruction": "q", "output": "a"}, {"output": "a"}, "missing-field"),
        ({"query": "q", "response": "a"}, {"response": "a"}, "missing-field"),
        (
            {"query": "q", "response": "a", "history": []},
            {"query": "q", "response": "a", "history": [["only"]]},
            "wrong-type",
        ),
        (
            {"query": "q", "response": "a", "history": "[]"},
            {"query": "q", "response": "a", "history": "[["},
            "bad-json-cell",
        ),
    ],
)
def test_faults_of_flat_formats_are_named(
    good: dict[str, Any], bad: dict[str, Any], code: str, tmp_path: Path
) -> None:
    read = dataset(tmp_path, good, bad)
    assert found(read) == [(code, "error", ("data:2",))]
    assert len(read.examples) == 1


def test_empty_texts_and_answers_are_left_to_the_checks(tmp_path: Path) -> None:
    read = dataset(tmp_path, {"text": "", "label": "a"}, {"text": None}, {"text": "q", "label": ""})
    assert read.findings == ()
    assert [(e.text, e.label, len(e.messages)) for e in read.examples] == [
        ("", "a", 2), ("", None, 1), ("q", None, 1),
    ]  # fmt: skip
    read = dataset(tmp_path, conversation(("user", None), ("assistant", "")))
    assert [m.content for m in read.examples[0].messages] == ["", ""]


def test_tools_are_left_out_and_said(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    rows = (
        GOOD,
        {**GOOD, "tools": [{"type": "function"}]},
        {"messages": [*GOOD["messages"][:1], call, {"role": "tool", "content": "3"},
                      *GOOD["messages"][1:]]},
        {**GOOD, "tools": "[]"},
    )  # fmt: skip
    read = dataset(tmp_path, *rows)
    assert found(read) == [("tools-ignored", "warning", ("data:2", "data:3"))]
    assert {example.messages for example in read.examples} == {
        (Message("user", "q"), Message("assistant", "a"))
    }


def test_settings_of_single_turns_are_said(tmp_path: Path) -> None:
    row = {"messages": [*GOOD["messages"][:1], {"role": "assistant", "content": "a", "weight": 2}]}
    assert found(dataset(tmp_path, GOOD, row)) == [
        ("turn-settings-ignored", "warning", ("data:2",))
    ]


@pytest.mark.parametrize("setting", [{"weight": 0}, {"loss": False}, {"train": False}])
def test_answers_of_no_weight_are_context(setting: dict[str, Any], tmp_path: Path) -> None:
    asked, said = GOOD["messages"]
    both = {"messages": [asked, {**said, **setting}, asked, {**said, "weight": 1}]}
    read = dataset(tmp_path, both, {"messages": [asked, {**said, **setting}]})
    assert [m.trained for m in read.examples[0].messages] == [True, False, True, True]
    assert found(read) == [("no-weight", "note", ("data:2",))]


def test_rows_count_by_their_weight(tmp_path: Path) -> None:
    rows = [{"text": "q", "label": "a", "w": w} for w in (1, "0.5", None, 2.0, 0, "much", -1)]
    read = dataset(tmp_path, *rows, columns={"weight": "w"})
    assert [example.weight for example in read.examples] == [1, 0.5, 1, 2]
    assert found(read) == [
        ("bad-weight", "error", ("data:6", "data:7")),
        ("no-weight", "note", ("data:5",)),
    ]
    read = dataset(tmp_path, *({"text": "q", "label": "a", "weight": w} for w in (1, 2)))
    assert [example.weight for example in read.examples] == [1, 1]


def picture_row(text: str, *images: str) -> dict[str, Any]:
    return {"images": list(images), **conversation(("user", text), ("assistant", "a"))}


def test_placeholders_and_images_that_differ_in_number_are_named(tmp_path: Path) -> None:
    read = dataset(
        tmp_path,
        picture_row("<image>q", "x"),
        picture_row("<image>q<image>", "x"),
        picture_row("<image>q", "x", "y"),
        picture_row("q", "x"),
        picture_row("q"),
        picture_row("<image>q"),
    )
    assert found(read) == [("image-count", "error", ("data:2", "data:3", "data:4", "data:6"))]
    x, y = Image("x", str(tmp_path)), Image("y", str(tmp_path))
    assert [example.messages[0].content for example in read.examples] == [
        (x, "q"), (x, "q<image>"), (y, x, "q"), (x, "q"), "q", "<image>q",
    ]  # fmt: skip


def test_a_file_without_placeholders_has_its_images_first(tmp_path: Path) -> None:
    read = dataset(tmp_path, picture_row("q", "x"), picture_row("q", "x", "y"))
    assert read.findings == ()
    assert [len(example.images) for example in read.examples] == [1, 2]


def test_text_that_says_image_in_a_file_without_images_is_text(tmp_path: Path) -> None:
    assert turns(tmp_path, conversation(("user", "<image> in SVG"), ("assistant", "a")))[1] == [
        ("user", "<image> in SVG"),
        ("assistant", "a"),
    ]


def qwen(text: str, answer: str = "a", **columns: Any) -> dict[str, Any]:
    turns = [{"from": "user", "value": text}, {"from": "assistant", "value": answer}]
    return {"conversations": turns, **columns}


def test_inline_images_are_read_where_they_are_paths(tmp_path: Path) -> None:
    read = dataset(
        tmp_path, qwen("<img> sub/x.JPG </img><img>bold</img>q"), qwen("what is <img>src</img>?")
    )
    assert read.format == "llava"
    assert [example.messages[0].content for example in read.examples] == [
        (Image("sub/x.JPG", str(tmp_path)), "<img>bold</img>q"), "what is <img>src</img>?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        qwen("Is <img>src</img> a tag?"),
        qwen("Write a tag", "<img>cat.png</img>"),
        conversation(("user", "a <img> b </img>")),
    ],
)
def test_prose_about_images_makes_no_format_of_images(row: dict[str, Any], tmp_path: Path) -> None:
    read = dataset(tmp_path, row)
    assert read.format in {"sharegpt", "messages"}
    assert read.examples[0].images == ()


def test_with_a_column_of_images_the_text_has_none(tmp_path: Path) -> None:
    read = dataset(tmp_path, qwen("<image>see <img>y.png</img>", images=["x.png"]))
    assert read.examples[0].messages[0].content == (
        Image("x.png", str(tmp_path)), "see <img>y.png</img>",
    )  # fmt: skip


def test_long_texts_of_half_tags_take_no_time() -> None:
    began = time.process_time()
    for text in ("<img>" * 200_000, "<img>" + "x" * 1_000_000, "<img> " + " ." * 500_000):
        assert inline_images(text) == []
    assert time.process_time() - began < 1


def test_groups_are_filled_from_their_column(tmp_path: Path) -> None:
    rows = [{"text": "q", "label": "a", "patient": p} for p in (1, "x", None, "")]
    groups = [e.group for e in dataset(tmp_path, *rows, group="patient").examples]
    assert groups == ["1", "x", None, None]


def test_every_format_has_a_title_and_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for name, form in FORMATS.items():
        assert f"`{name}`" in page
        assert form.title in page


ANY = st.recursive(
    st.sampled_from([None, True, 1, 2.5, "", "x", "<image>", "user", "text", "[1]", "http://x/y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "image", "bytes"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


COLUMNS = [
    "messages", "conversations", "images", "system", "tools", "history", "query", "response",
    "prompt", "completion", "text", "label",
]  # fmt: skip


@given(row=st.dictionaries(st.sampled_from(COLUMNS), ANY, min_size=1))
@settings(max_examples=300, deadline=None)
def test_rows_of_any_shape_give_an_example_or_a_finding(
    row: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text(json.dumps(row))
    for name in FORMATS:
        try:
            read = load_dataset(path, Reading(format=name))
        except KilotuneError:
            continue
        errors = [f for f in read.findings if f.severity == "error" and f.code != "image-count"]
        assert len(read.examples) + len(errors) == 1


def test_the_samples_in_the_docs_are_of_the_formats_they_show(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    samples = re.findall(
        r"\*\*`([a-z-]+)`\*\*(?:(?!```).)*```(json|csv)\n(.+?)```", page, re.DOTALL
    )
    assert [name for name, _, _ in samples] == list(FORMATS)
    for name, kind, content in samples:
        rows = [content] if kind == "csv" else content.splitlines()
        for row in rows:
            path = tmp_path / f"a.{'csv' if kind == 'csv' else 'jsonl'}"
            path.write_text(row)
            read = load_dataset(path)
            assert (read.format, read.findings, len(read.examples)) == (name, (), 1)


def test_findings_print_as_one_line(tmp_path: Path) -> None:
    (finding,) = dataset(tmp_path, GOOD, conversation(("a\nb", "x"))).findings
    assert isinstance(finding, Finding)
    assert str(finding) == (
        "turns of an unknown role: 'a\\nb' (1): data:2. Use system, user and assistant"
    )


def test_columns_of_no_format_are_asked_for_by_the_fields_of_each(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"ask": "x", "reply": "y"}\n')
    with pytest.raises(KilotuneError) as caught:
        load_dataset(path)
    for field in ("text", "label", "prompt", "completion", "messages"):
        assert f"--column {field}=NAME" in caught.value.fix
    with pytest.raises(KilotuneError) as caught:
        load_dataset(path, Reading(text="ask"))
    assert caught.value.fix.startswith("Name one with --column label=NAME; ")


def test_a_stray_row_makes_no_format_of_a_file(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(60)]
    stray = {"instruction": "do", "output": "done"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [*rows, stray])))
    read = load_dataset(tmp_path / "a.jsonl")
    assert read.format == "prompt-completion"
    assert found(read) == [("missing-field", "error", ("data:61",))]


def test_rows_without_a_group_are_named(tmp_path: Path) -> None:
    rows = [{"text": f"t{n}", "label": "a", "who": "p" if n % 2 else None} for n in range(4)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = load_dataset(tmp_path / "a.jsonl", Reading(group="who"))
    assert found(read) == [("missing-group", "warning", ("data:1", "data:3"))]


def test_images_are_classified_without_any_text(tmp_path: Path) -> None:
    lines = ["image_path,label", *(f"{n}.png,{'ab'[n % 2]}" for n in range(12))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    read = load_dataset(tmp_path / "a.csv")
    assert (read.format, read.task, read.findings) == ("text-label", "classify", ())
    assert [(e.text, e.images[0].source, e.label) for e in read.examples[:2]] == [
        ("", "0.png", "a"),
        ("", "1.png", "b"),
    ]


@pytest.mark.parametrize(
    ("asked", "said"), [("prompt", "completion"), ("instruction", "output"), ("query", "response")]
)
def test_empty_values_among_json_answers_are_answers(asked: str, said: str, tmp_path: Path) -> None:
    values: list[Any] = [["a"], {"b": 1}, [], {}, [["c"]], ["d"], ["e"], ["f"]]
    read = dataset(tmp_path, *({asked: f"q{n}", said: value} for n, value in enumerate(values)))
    assert [json.loads(example.answer or "") for example in read.examples] == values
    assert read.task == "extract"
    # Among plain answers an empty list is none.
    plain: list[Any] = ["a", "b", [], "c"]
    read = dataset(tmp_path, *({asked: f"q{n}", said: value} for n, value in enumerate(plain)))
    assert [example.answer for example in read.examples] == ["a", "b", None, "c"]


def test_images_are_looked_for_in_the_folder_that_is_named(tmp_path: Path) -> None:
    read = dataset(tmp_path, picture_row("<image>q", "sub/x.png"), images=tmp_path / "photos")
    assert read.examples[0].images[0].path == tmp_path / "photos" / "sub" / "x.png"
