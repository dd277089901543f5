"""From every format to every other: nothing is lost, or it is said and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kilotune.data.column_plan import Reading
from kilotune.data.conversion import convert
from kilotune.data.example import Example, Image, Message, Origin
from kilotune.data.files.writers import write_table
from kilotune.data.formats import FORMATS
from kilotune.data.normalise import load_dataset
from kilotune.errors import KilotuneError

# Surrogates are no text. Of the words, ODD are what some format reads as something else than
# text; PLAIN look like it and are not. Hypothesis draws strings of the tested code too.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TURNS = '[{"role": "user", "content": "x"}]'
ODD = ("<image>", "<img>a.png</img>", TURNS)
PLAIN = st.sampled_from(["<", "[", "[1]", '{"a": 1}', "<img>", "</img>", "a <img>b</img>", "[{}]"])
SOME = (TEXT | PLAIN).filter(lambda text: text.strip() != "" and not any(o in text for o in ODD))
PICTURES = st.sampled_from([b"\x89PNG one", b"\xff\xd8\xff two", "a.png", "sub/b.jpg"])


def image(value: bytes | str, folder: Path) -> Image:
    return Image("", data=value) if isinstance(value, bytes) else Image(value, str(folder))


@st.composite
def conversations(
    draw: st.DrawFn, folder: Path, name: str, texts: st.SearchStrategy[str]
) -> tuple[Message, ...]:
    """A conversation that the format `name` can hold, if it can hold `texts`."""
    flat = name == "text-label"
    system = [Message("system", draw(texts))] if not flat and draw(st.booleans()) else []
    turns = []
    for _ in range(1 if flat else draw(st.integers(1, 3))):
        pictures = [image(value, folder) for value in draw(st.lists(PICTURES, max_size=2))]
        text = draw(texts).strip() if flat else draw(texts)
        turns += [Message("user", (*pictures, text) if pictures else text)]
        turns += [Message("assistant", draw(texts).strip() if flat else draw(texts))]
    return (*system, *(turns[:-1] if draw(st.booleans()) else turns))


def as_examples(conversations: list[tuple[Message, ...]]) -> list[Example]:
    return [Example(f"data:{i}", c, Origin("a", i)) for i, c in enumerate(conversations, 1)]


def messages_of(path: Path, name: str) -> list[tuple[Message, ...]]:
    """What is read of the file, whose format `name` is detected."""
    read = load_dataset(path)
    assert {finding.code for finding in read.findings} <= {"several-answers", "image-word"}
    # ShareGPT with images is what LLaVA's files are.
    pictured = any(example.images for example in read.examples)
    assert read.format == ("llava" if name == "sharegpt" and pictured else name)
    return [example.messages for example in read.examples]


KINDS = st.sampled_from(["jsonl", "json.gz", "csv", "tsv", "parquet"])


@pytest.mark.parametrize("name", list(FORMATS))
@given(data=st.data(), kind=KINDS)
@settings(max_examples=40, deadline=None)
def test_every_format_survives_the_way_to_messages_and_back(
    name: str, data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("way")
    talks = data.draw(st.lists(conversations(folder, name, SOME), min_size=1, max_size=4))
    rows = FORMATS[name].write(as_examples(talks))
    first = folder / f"first.{kind}"
    write_table(first, tuple(dict.fromkeys(key for row in rows for key in row)), rows)
    assert messages_of(first, name) == talks

    middle = folder / "middle.jsonl"
    convert(first, middle, to="messages")
    assert messages_of(middle, "messages") == talks

    back = folder / f"back.{kind}"
    convert(middle, back, to=name)
    assert messages_of(back, name) == talks


@pytest.mark.parametrize("name", list(FORMATS))
@given(data=st.data(), kind=KINDS)
@settings(max_examples=40, deadline=None)
def test_texts_that_a_format_would_read_otherwise_are_kept_or_refused(
    name: str, data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    odd = SOME | st.sampled_from(ODD)
    talks = data.draw(st.lists(conversations(folder, name, odd), min_size=1, max_size=4))
    first = folder / "first.jsonl"
    write_table(first, ("messages",), FORMATS["messages"].write(as_examples(talks)))
    assert messages_of(first, "messages") == talks
    back = folder / f"back.{kind}"
    refusal = None
    try:
        convert(first, back, to=name)
    except KilotuneError as error:
        refusal = error.what
    if refusal is None:
        assert [example.messages for example in load_dataset(back).examples] == talks
    else:
        assert "cannot hold all of" in refusal
        assert name != "messages"
        assert not back.exists()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_labels_survive_by_their_answers(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    labels = data.draw(st.lists(st.sampled_from(["good", "bad", "好"]), min_size=6, max_size=12))
    assume(len(set(labels)) > 1)
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    write_table(folder / "a.csv", ("text", "label"), rows)
    convert(folder / "a.csv", folder / "b.jsonl", to="messages")
    read = load_dataset(folder / "b.jsonl", Reading(task="classify"))
    assert [example.label for example in read.examples] == labels


def test_text_and_labels_stay_and_the_rest_becomes_messages(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", ("text", "label"), [{"text": "q", "label": "a"}])
    done = convert(tmp_path / "a.csv", tmp_path / "b.parquet")
    assert (done.format, done.rows) == ("text-label", 1)
    row = {"instruction": "q", "input": "", "output": "a", "source": "web", "n": 1}
    write_table(tmp_path / "c.json", tuple(row), [row])
    done = convert(tmp_path / "c.json", tmp_path / "d.jsonl")
    assert (done.format, done.left_behind) == ("messages", ("source", "n"))
    assert json.loads((tmp_path / "d.jsonl").read_text()) == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    }


def test_groups_go_along(tmp_path: Path) -> None:
    rows = [{"text": "q", "label": "a", "patient": "p"}, {"text": "r", "label": "b"}]
    write_table(tmp_path / "a.jsonl", ("text",), rows)
    done = convert(
        tmp_path / "a.jsonl", tmp_path / "b.jsonl", reading=Reading(group="patient"), to="alpaca"
    )
    assert done.left_behind == ()
    read = load_dataset(tmp_path / "b.jsonl", Reading(group="group"))
    assert [example.group for example in read.examples] == ["p", None]


def test_paths_of_images_become_relative_to_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "in" / "pics").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "pics" / "x.png").write_bytes(b"picture")
    absolute = str(tmp_path / "in" / "pics" / "x.png")
    rows = [{"text": "q", "label": "a", "image": source} for source in ("pics/x.png", absolute)]
    write_table(tmp_path / "in" / "a.csv", ("text", "label", "image"), rows)
    convert(tmp_path / "in" / "a.csv", tmp_path / "out" / "b.csv")
    read = load_dataset(tmp_path / "out" / "b.csv")
    assert [e.images[0].source for e in read.examples] == ["../in/pics/x.png", absolute]
    assert [e.images[0].path.read_bytes() for e in read.examples] == [b"picture"] * 2


def chat(*turns: str) -> dict[str, Any]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return {"messages": [{"role": roles[turn[:1] or "a"], "content": turn} for turn in turns]}


def picture(text: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": "x.png"}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}]}


@pytest.mark.parametrize(
    ("to", "row", "reason"),
    [
        ("text-label", chat("s", "u", "a"), "a system message"),
        ("text-label", chat("u1", "a1", "u2", "a2"), "several answers"),
        ("alpaca", chat("u1", "u2", "a"), "the turns user, user, assistant"),
        ("alpaca", chat("a"), "the turns assistant"),
        ("sharegpt", picture("u <image>"), "images or the text '<image>'"),
        ("alpaca", chat("u", ""), "an empty or unusual text"),
    ],
)
def test_what_a_format_cannot_hold_is_said_and_nothing_is_written(
    to: str, row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (chat("u", "a"), row, chat("u", "a"), row)))
    with pytest.raises(KilotuneError) as caught:
        convert(path, tmp_path / "b.jsonl", to=to)
    assert reason in caught.value.what
    assert "data:2, data:4" in caught.value.what
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_text_that_says_image_is_kept_where_no_row_has_images(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, (chat("u <image>", "a"), chat("u", "a")))))
    convert(path, tmp_path / "b.jsonl", to="sharegpt")
    assert load_dataset(tmp_path / "b.jsonl").examples[0].text == "u <image>"
    # Beside rows with images the same text would be taken for one.
    path.write_text("\n".join(map(json.dumps, (chat("u <image>", "a"), picture("u")))))
    with pytest.raises(KilotuneError, match=r"1 rows .*data:1"):
        convert(path, tmp_path / "c.jsonl", to="sharegpt")


def test_rows_that_cannot_be_read_stop_the_conversion(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = {"messages": [{"role": "robot", "content": "x"}]}
    path.write_text("\n".join(map(json.dumps, (chat("u", "a"), bad))))
    with pytest.raises(KilotuneError, match="unknown role: 'robot'"):
        convert(path, tmp_path / "b.jsonl")


def test_a_file_is_overwritten_by_force_alone_and_never_by_itself(tmp_path: Path) -> None:
    source, out = tmp_path / "a.csv", tmp_path / "b.csv"
    write_table(source, ("text", "label"), [{"text": "q", "label": "a"}])
    out.write_text("mine")
    with pytest.raises(KilotuneError, match="--force"):
        convert(source, out)
    assert out.read_text() == "mine"
    convert(source, out, force=True)
    assert out.read_text() == "text,label\nq,a\n"
    with pytest.raises(KilotuneError, match="the file to convert"):
        convert(source, source, force=True)
    with pytest.raises(KilotuneError, match="no format 'openai'"):
        convert(source, tmp_path / "c.csv", to="openai")
    with pytest.raises(KilotuneError, match=r"cannot write files ending in '\.txt'"):
        convert(source, tmp_path / "c.txt")


def test_weights_of_rows_and_answers_go_along(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "b"},
    ]
    rows = [{"messages": turns, "w": weight} for weight in (1, 2)]
    write_table(tmp_path / "a.jsonl", ("messages", "w"), rows)
    weighted = Reading(columns={"weight": "w"})
    convert(tmp_path / "a.jsonl", tmp_path / "b.json", reading=weighted)
    read = load_dataset(tmp_path / "b.json", Reading(columns={"weight": "weight"}))
    before = load_dataset(tmp_path / "a.jsonl", weighted)
    assert [e.weight for e in read.examples] == [1, 2]
    assert [e.messages for e in read.examples] == [e.messages for e in before.examples]
    with pytest.raises(KilotuneError, match="answers that are not to be trained"):
        convert(tmp_path / "a.jsonl", tmp_path / "c.json", to="sharegpt", reading=weighted)
