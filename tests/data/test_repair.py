import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.checks import check_examples
from kilotune.data.normalise import load_dataset
from kilotune.data.repair import plain_text, redecoded, repair_file, without_control
from kilotune.errors import KilotuneError
from tests.data.corpus import CHATS, LOOKING, PICTURES, REVIEWS, as_csv, as_lines, changed


def repaired(path: Path, out: Path) -> tuple[list[dict], list[dict]]:  # type: ignore[type-arg]
    """The rows of the repaired copy, and its log."""
    dataset = load_dataset(path)
    repair_file(dataset, check_examples(dataset.examples, dataset.task), out)
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
    dataset = load_dataset(path)
    with pytest.raises(KilotuneError, match="left as it is"):
        repair_file(dataset, [], path)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(KilotuneError, match="no longer lead"):
        repair_file(dataset, [], tmp_path / "elsewhere" / "look.jsonl")
    assert repair_file(dataset, [], tmp_path / "again.jsonl") == []
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()


def test_check_fix_ends_with_the_state_of_the_copy(tmp_path: Path) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_bytes(as_csv([*changed(REVIEWS, 1, label="positive."), REVIEWS[2]]))
    result = CliRunner().invoke(app, ["check", str(path), "--fix", str(out)])
    assert result.exit_code == 0, result.output
    assert "Repaired: 1 label-variants, 1 duplicate" in result.output
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
