import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.column_plan import Reading
from kilotune.data.files.readers import read_table
from kilotune.data.normalise import load_dataset
from kilotune.data.repair import (
    REMOVED,
    plain_text,
    redecoded,
    repair,
    repair_file,
    repairable,
    without_control,
)
from kilotune.errors import KilotuneError
from tests.data import corpus
from tests.data.corpus import (
    CHATS,
    LOOKING,
    PICTURES,
    QUESTIONS,
    REVIEWS,
    as_csv,
    as_lines,
    as_parquet,
    changed,
    picture,
)
from tests.support.fuzz import mutate


def repaired(path: Path, out: Path) -> tuple[list[dict], list[dict]]:  # type: ignore[type-arg]
    """The rows of the repaired copy, and its log."""
    repair_file(Reading(), path, out)
    log = out.with_name(f"{out.name}.changes.jsonl").read_text(encoding="utf-8")
    rows = [row.values for row in load_dataset(out).table.rows]  # type: ignore[union-attr]
    return rows, [json.loads(line) for line in log.splitlines()]


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("cafÃ© â€” naÃ¯ve", "café — naïve"),
        ("鐢靛奖寰堝ソ鐪?", "鐢靛奖寰堝ソ鐪?"),  # cut off in decoding: what it was is lost
        ("电影很好看的".encode().decode("gbk"), "电影很好看的"),
        ("plain — text", "plain — text"),
    ],
)
def test_wrong_decoding_is_undone_where_it_can_be(broken: str, whole: str) -> None:
    assert redecoded(broken) == whole


def test_html_becomes_plain_text_and_code_stays() -> None:
    assert plain_text("one<br/>two</p><b>three</b>&nbsp;&amp; four") == "one\ntwo\nthree & four"
    assert plain_text("a < b and c > d") == "a < b and c > d"
    assert plain_text("write `<br>` here &amp; there") == "write `<br>` here &amp; there"


def test_control_characters_go_and_lines_stay() -> None:
    assert without_control("a\x00b\tc\nd\u2028e\ufeff\u200b") == "ab\tc\nd\ne"
    assert without_control("ไทย\u200bไทย") == "ไทย\u200bไทย"


def test_what_is_safe_is_repaired_and_logged_and_the_rest_is_left(tmp_path: Path) -> None:
    rows = changed(REVIEWS, 0, label="Positive")
    rows = changed(rows, 3, text="A\x07 scene that stays.")
    rows = changed(rows, 5, text="")
    rows = [{**row, "source": f"s{i}"} for i, row in enumerate([*rows, REVIEWS[20]])]
    path = tmp_path / "reviews.csv"
    path.write_bytes(as_csv(rows))
    made, log = repaired(path, tmp_path / "out.jsonl")
    assert [row["source"] for row in made] == [f"s{i}" for i in range(24) if i != 5]
    assert {row["label"] for row in made} == {"positive", "negative"}
    assert made[3]["text"] == "A scene that stays."
    assert [(c["row"], c["code"], c["field"], c["after"]) for c in log] == [
        ("data:2", "label-variants", "label", "positive"),
        ("data:5", "control-characters", "text", "A scene that stays."),
        ("data:7", "empty-text", "", None),
        ("data:26", "duplicate", "", None),
    ]
    assert json.loads(log[2]["before"])["source"] == "s5"


def test_texts_inside_turns_are_repaired(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "cafÃ©\x08?"}, {"role": "assistant", "content": "Yes."}]
    path = tmp_path / "chats.jsonl"
    path.write_bytes(as_lines(changed(CHATS, 1, messages=turns)))
    made, log = repaired(path, tmp_path / "out.jsonl")
    assert made[1]["messages"][0]["content"] == "café?"
    assert {change["field"] for change in log} == {"messages.0.content"}
    assert [row for i, row in enumerate(made) if i != 1] == [CHATS[0], *CHATS[2:]]


def test_nothing_is_written_over_and_pictures_keep_their_paths(tmp_path: Path) -> None:
    path = tmp_path / "look.jsonl"
    path.write_bytes(as_lines(LOOKING))
    for name, raw in PICTURES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(KilotuneError, match="left as it is"):
        repair_file(Reading(), path, path)
    assert repair_file(Reading(), path, tmp_path / "again.jsonl") == []
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    other = tmp_path / "elsewhere" / "look.jsonl"
    other.parent.mkdir()
    changes = repair_file(Reading(), path, other)
    assert {(c.row, c.code, c.field, c.after) for c in changes} == {
        (f"data:{i}", "image-moved", "image", f"../pictures/{i - 1}.png") for i in range(1, 13)
    }
    assert clean(other)


def clean(path: Path) -> bool:
    """Whether check finds nothing in a file but that its images are elsewhere."""
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    found = {finding["code"] for finding in json.loads(result.stdout)["findings"]}
    assert found <= {"image-outside"}, result.stdout
    return result.exit_code == 0


def test_images_of_files_in_subfolders_are_found_from_the_copy(tmp_path: Path) -> None:
    case = next(case for case in corpus.clean() if case.file == "llava.jsonl")
    folder = tmp_path / "data"
    case.write(folder / "sub")
    inline = [{"query": f"<img>pictures/{i}.png</img>{a}", "response": b}
              for i, (a, b) in enumerate(QUESTIONS)]  # fmt: skip
    (folder / "sub" / "inline.jsonl").write_bytes(as_lines(inline))
    nested = [
        {"messages": json.dumps([
            {"role": "user", "content": [{"type": "image", "image": f"pictures/{i}.png"},
                                         {"type": "text", "text": f"pictures/{i}.png"}]},
            {"role": "assistant", "content": b}])}
        for i, (_, b) in enumerate(QUESTIONS)
    ]  # fmt: skip
    (folder / "sub" / "nested.csv").write_bytes(as_csv(nested))
    for name in ("llava.jsonl", "inline.jsonl", "nested.csv"):
        out = tmp_path / name
        repair_file(Reading(), folder / "sub" / name, out)
        before, after = load_dataset(folder / "sub" / name), load_dataset(out)
        assert [[i.path.resolve() for i in e.images] for e in after.examples] == [
            [i.path.resolve() for i in e.images] for e in before.examples
        ]
        assert [e.text for e in after.examples] == [e.text for e in before.examples]
        assert clean(out)
    # A folder is read as one table, and copied as one.
    for name in ("inline.jsonl", "nested.csv"):
        (folder / "sub" / name).unlink()
    repair_file(Reading(), folder, folder / "all.jsonl")
    assert clean(folder / "all.jsonl")


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".xlsx", ".parquet"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_images_that_stand_in_parquet_become_files(
    tmp_path: Path, ending: str, as_dict: bool
) -> None:
    pictures = [picture(i) for i in range(len(REVIEWS))]
    rows = [
        {**row, "image": {"bytes": raw, "path": "one.png"} if as_dict else raw}
        for row, raw in zip(REVIEWS, pictures, strict=True)
    ]
    path, out = tmp_path / "a.parquet", tmp_path / f"b{ending}"
    path.write_bytes(as_parquet([*rows, rows[3]]))
    changes = repair_file(Reading(), path, out)
    assert clean(out)
    images = [example.images[0] for example in load_dataset(out).examples]
    assert [i.data if ending == ".parquet" else i.path.read_bytes() for i in images] == pictures
    assert [c.code for c in changes][:1] == ["duplicate"]
    assert len(changes) == (1 if ending == ".parquet" else 1 + len(REVIEWS))
    assert (tmp_path / f"b{ending}.images").exists() == (ending != ".parquet")
    for written in (out, out.with_name(f"{out.name}.changes.jsonl")):
        written.unlink()
    if ending != ".parquet":  # nor are its images written over
        with pytest.raises(KilotuneError, match="left as it is"):
            repair_file(Reading(), path, out)


def test_rows_equal_but_for_case_or_width_are_kept(tmp_path: Path) -> None:
    first, second = REVIEWS[0], REVIEWS[1]
    more = [
        {**first, "text": first["text"].upper()},
        {**second, "text": corpus.wide(second["text"])},
        {**first, "text": f"  {first['text']} "},
    ]
    path, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_bytes(as_lines([*REVIEWS, *more]))
    made, log = repaired(path, out)
    assert made == [*REVIEWS, *more[:2]]
    assert [(c["row"], c["code"]) for c in log] == [("data:27", "duplicate")]


def test_repeats_that_repairs_bring_to_light_go_too(tmp_path: Path) -> None:
    more = [
        {**REVIEWS[0], "label": "Positive"},
        {**REVIEWS[1], "text": f"<b>{REVIEWS[1]['text']}</b>"},
        {**REVIEWS[2], "text": "\x07"},
        {**REVIEWS[3], "text": REVIEWS[3]["text"].replace(" ", " &amp;amp;lt;", 1)},
    ]
    path, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_bytes(as_lines([*REVIEWS, *more]))
    made, log = repaired(path, out)
    last = {**REVIEWS[3], "text": REVIEWS[3]["text"].replace(" ", " <", 1)}
    assert made == [*REVIEWS, last]
    assert [(c["row"], c["code"]) for c in log if c["after"] is None] == [
        ("data:25", "duplicate"), ("data:26", "duplicate"), ("data:27", "empty-text"),
    ]  # fmt: skip
    assert [c["code"] for c in log if c["row"] == "data:25"] == ["label-variants", "duplicate"]


def test_a_label_is_respelt_and_a_text_that_reads_like_it_is_not(tmp_path: Path) -> None:
    rows = [*REVIEWS, {"text": "Positive", "label": "Positive"}]
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(rows))
    made, _ = repaired(path, tmp_path / "b.jsonl")
    assert made[-1] == {"text": "Positive", "label": "positive"}
    turns = [
        {"messages": [{"role": "user", "content": row["text"]},
                      {"role": "assistant", "content": row["label"]}]}
        for row in rows
    ]  # fmt: skip
    path.write_bytes(as_lines(turns))
    made, _ = repaired(path, tmp_path / "c.jsonl")
    assert [turn["content"] for turn in made[-1]["messages"]] == ["Positive", "positive"]


def test_a_file_of_which_nothing_would_be_left_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n,a\n ,b\n", encoding="utf-8")
    with pytest.raises(KilotuneError, match="every row would be left out"):
        repair_file(Reading(), path, tmp_path / "b.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


TEXTUAL = [
    case for case in [*corpus.clean(), *corpus.faulty()]
    if case.file.endswith((".csv", ".tsv", ".json", ".jsonl"))
]  # fmt: skip
FAULTS = (
    lambda text: text.upper(),
    lambda text: f"\u200b{text}\x08",
    lambda text: text.replace(" ", "&nbsp;", 2),
    lambda text: f"<p>{text}</p>",
    lambda text: text.replace("e", "\u00e9").encode().decode("cp1252", "replace"),
    lambda text: "",
    lambda text: f" {text}.",
)


def leaves_nothing_to_repair(path: Path, out: Path) -> None:
    """That a copy, read again, has no finding that could be repaired."""
    try:
        repair_file(Reading(), path, out)
    except KilotuneError:
        assert not out.exists()
        return
    dataset = load_dataset(out)
    assert repair(dataset) is None
    left = {finding.code for finding in repairable(dataset)}
    assert left.isdisjoint({*REMOVED, "label-variants", "control-characters"})


@given(st.sampled_from(TEXTUAL), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_a_copy_of_any_broken_file_has_nothing_left_to_repair(case: corpus.Case, seed: int) -> None:
    with TemporaryDirectory() as scratch:
        path = case.write(Path(scratch) / "in")
        path.write_bytes(mutate(case, Random(seed)))
        leaves_nothing_to_repair(path, Path(scratch) / f"out{path.suffix}")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 23), st.sampled_from(["text", "label"]),
            st.lists(st.sampled_from(FAULTS), max_size=2),
        ),
        max_size=8,
    ),
    st.sampled_from([".csv", ".jsonl", ".xlsx", ".parquet"]),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_faults_in_any_rows_are_repaired_in_every_kind_of_file(
    faults: list[tuple[int, str, list[Callable[[str], str]]]], ending: str
) -> None:
    rows = [dict(row) for row in REVIEWS]
    for index, name, edits in faults:
        row = dict(REVIEWS[index])
        for edit in edits:
            row[name] = edit(row[name])
        rows.append(row)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "in.jsonl"
        path.write_bytes(as_lines(rows))
        leaves_nothing_to_repair(path, Path(scratch) / f"out{ending}")


def test_check_fix_ends_with_the_state_of_the_copy(tmp_path: Path) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(as_csv([*changed(REVIEWS, 1, label="positive."), REVIEWS[2]]))
    result = CliRunner().invoke(app, ["check", str(path), "--fix", str(out)])
    assert result.exit_code == 0, result.output
    assert "Repaired: 1 label-variants\nRows left out: 1 duplicate" in result.output
    assert "Left for you: nothing" in result.output
    as_json = CliRunner().invoke(
        app, ["check", str(path), "--fix", str(tmp_path / "c.csv"), "--json"]
    )
    document = json.loads(as_json.stdout)
    assert [f["code"] for f in document["before"]["findings"]] == [
        "label-variants", "rare-class", "duplicate",
    ]  # fmt: skip
    assert (document["findings"], document["status"]) == ([], 0)
    assert CliRunner().invoke(app, ["check", str(path), "--fix", str(out)]).exit_code == 2


def test_only_what_is_read_is_edited_and_json_stays_json(tmp_path: Path) -> None:
    label = "\u5c0f\u5b66"  # its GBK bytes happen to be UTF-8
    rows = [
        {**row, "author": f"a{i}", "url": f"?a={i}&copy=2&amp;b=3"} for i, row in enumerate(REVIEWS)
    ]
    rows[0] = {**rows[0], "label": "Positive", "author": "Positive"}
    rows[1] = {**rows[1], "text": "Caf\u00c3\u00a9 &amp; bar, twice", "url": label}
    path = tmp_path / "reviews.jsonl"
    path.write_bytes(as_lines(rows))
    made, _ = repaired(path, tmp_path / "out.jsonl")
    assert made[0] == {**rows[0], "label": "positive"}
    assert made[1] == {**rows[1], "text": "Caf\u00e9 & bar, twice"}
    assert redecoded(label) == label
    cells = [{"messages": json.dumps(row["messages"])} for row in CHATS]
    turns = [
        {"role": "user", "content": "He said &quot;hi&quot;"},
        {"role": "assistant", "content": "x"},
    ]
    cells[3] = {"messages": json.dumps(turns)}
    table = tmp_path / "chats.csv"
    table.write_bytes(as_csv(cells))
    repaired(table, tmp_path / "chats_out.csv")
    third = load_dataset(tmp_path / "chats_out.csv").examples[3]
    assert third.messages[0].text == 'He said "hi"'


def test_answers_that_are_html_stay_html() -> None:
    assert plain_text("Is a <b and c> d true? R&D") == "Is a <b and c> d true? R&D"


def test_chinese_read_as_latin_is_read_as_chinese_again() -> None:
    said = "导演和演员都很用心，值得再看一遍"
    for encoding in ("latin-1", "cp1252"):
        try:
            garbled = said.encode("gbk").decode(encoding)
        except UnicodeDecodeError:
            continue
        assert redecoded(garbled) == said
    assert redecoded("Ça va très bien à l'été, élève") == "Ça va très bien à l'été, élève"


def test_half_a_repair_is_none() -> None:
    """ftfy alone would make a Glagolitic letter of two bytes and leave the rest."""
    garbled = "这部电影真的非常好看".encode("gbk").decode("latin-1") + " fin"
    cut = garbled[1:]
    assert redecoded(cut) == cut


def test_what_follows_the_last_answer_is_cut_and_the_answer_kept(tmp_path: Path) -> None:
    chats = [
        [
            {"from": "human", "value": f"question {n}, and it is not short"},
            {"from": "gpt", "value": f"an answer of its own, number {n}"},
        ]
        for n in range(12)
    ]
    chats[4].append({"from": "human", "value": "and then?"})
    source, out = tmp_path / "chats.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"conversations": chat}) + "\n" for chat in chats))
    changes = repair_file(Reading(), source, out)
    assert [(c.row, c.code, c.field, c.after) for c in changes] == [
        ("data:5", "missing-answer", "conversations", "")
    ]
    assert "and then?" in changes[0].before
    kept = [json.loads(line)["conversations"] for line in out.read_text().splitlines()]
    assert kept == [*chats[:4], chats[4][:2], *chats[5:]]


def test_empty_json_answers_are_kept(tmp_path: Path) -> None:
    values: list[Any] = [[f"found {n}"] for n in range(12)] + [[], {}]
    rows = [{"prompt": f"what is in number {n}", "completion": v} for n, v in enumerate(values)]
    rows.append({"prompt": "and nothing", "completion": None})
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = repair_file(Reading(), path, tmp_path / "b.jsonl")
    assert [(change.row, change.code) for change in changes] == [("data:15", "missing-answer")]
    assert [r.values["completion"] for r in read_table(tmp_path / "b.jsonl").rows] == values
