from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from kilotune.data.checks import check_examples, check_leakage, check_split, check_unseen_labels
from kilotune.data.checks.labels import missing_value
from kilotune.data.example import Image, Task
from kilotune.data.finding import SEVERITIES, stop_on_errors
from kilotune.errors import KilotuneError
from tests.support.made import answered, conversation, pictured, sentences
from tests.support.made import classified as made


def clean(count: int = 20) -> list[tuple[str, str | None]]:
    return [(f"text {i}", ("a", "b")[i % 2]) for i in range(count)]


def codes(*pairs: tuple[str, str | None]) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.rows for finding in check_examples(made(*pairs))}


def test_clean_data_have_no_findings() -> None:
    assert codes(*clean()) == {}


def test_empty_texts_and_missing_labels_name_all_their_rows() -> None:
    found = codes(*clean(), ("", "a"), ("x", None), ("", "b"))
    assert found == {"empty-text": ("data:22", "data:24"), "missing-label": ("data:23",)}


def test_too_few_examples() -> None:
    assert "too-few-examples" in codes(*clean(9))
    assert "too-few-examples" not in codes(*clean(10))


def test_single_class() -> None:
    assert codes(*((f"t{i}", "a") for i in range(12))) == {"single-class": ()}


def test_free_text_in_the_label_column() -> None:
    assert codes(*((f"t{i}", f"answer {i}") for i in range(12))) == {"too-many-classes": ()}


def test_rare_classes() -> None:
    found = codes(*clean(), *((f"rare {i}", "c") for i in range(4)))
    assert found == {"rare-class": ("data:22", "data:23", "data:24", "data:25")}


def test_uneven_classes_are_a_note_and_very_uneven_ones_a_warning() -> None:
    texts = sentences(320)
    found = {}
    for most in (49, 50, 149, 150):
        rows = [*((text, "a") for text in texts[:most]), *((text, "b") for text in texts[-5:])]
        found[most] = [(f.code, f.severity) for f in check_examples(made(*rows))]
    note, warning = [("class-imbalance", "note")], [("class-imbalance", "warning")]
    assert found == {49: [], 50: note, 149: note, 150: warning}


def test_a_class_that_a_part_lacks_is_named_with_the_part() -> None:
    parts = {"train": made(("x", "a"), ("y", "b")), "test": made(("z", "a"))}
    (finding,) = check_split(parts)
    assert (finding.code, finding.severity) == ("empty-class-in-part", "warning")
    assert finding.message.endswith("(1): 'b' in test")
    assert check_split({"train": parts["train"], "test": parts["train"]}) == []


def test_label_variants_are_an_error_that_names_them() -> None:
    finding, rare = check_examples(made(*clean(), ("more", "Ａ.")))
    assert rare.code == "rare-class"
    assert (finding.code, finding.severity) == ("label-variants", "error")
    assert "'Ａ.' for 'a' (1): data:22" in finding.message
    assert finding.rows == ("data:22",)


def test_repeats_are_found_across_case_width_and_spaces() -> None:
    assert codes(*clean(), (" text 0", "a")) == {"duplicate": ("data:22",)}
    assert codes(*clean(), ("Ｔｅｘｔ   0", "a")) == {"near-duplicate": ("data:22",)}


def test_conflicts_are_not_duplicates() -> None:
    assert codes(*clean(), ("text 0", "b")) == {"conflicting-labels": ("data:2", "data:22")}


def test_leakage_names_the_held_out_rows() -> None:
    train = made(*clean())
    (finding,) = check_leakage(train, made(("TEXT 3", "b"), ("new", "a")), "test")
    assert (finding.code, finding.rows) == ("leakage", ("data:2",))
    assert check_leakage(train, made(("new", "a")), "test") == []


def test_labels_that_training_lacks_are_an_error() -> None:
    (finding,) = check_unseen_labels(made(*clean()), made(("x", "A"), ("y", "a")), "test")
    assert (finding.severity, finding.rows) == ("error", ("data:2",))
    assert "'A'" in finding.message


def test_errors_come_together_and_warnings_do_not_stop() -> None:
    stop_on_errors(check_examples(made(*clean(), ("text 0", "a"))), "a.csv")
    with pytest.raises(KilotuneError) as caught:
        stop_on_errors(check_examples(made(("", "a"), ("x", None))), "a.csv")
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.csv: 4 kinds of errors"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "  empty-text", "  missing-label", "  too-few-examples", "  single-class",
    ]  # fmt: skip
    assert lines[1].endswith("(1): data:2. Fill in the text or remove the rows")
    assert lines[2].endswith("(1): data:3. Label the rows or remove them")


def test_clean_data_of_every_task_have_no_findings(tmp_path: Path) -> None:
    asked = sentences(60)
    chats = [
        conversation(
            i, ("system", "Be brief."), ("user", text), ("assistant", f"Done, {i}."),
            ("user", "Why there?"), ("assistant", f"It was near, for {text.lower()}.")
        )
        for i, text in enumerate(asked)
    ]  # fmt: skip
    orders = answered(
        *((text, f'{{"deed": "{text[:5]}", "count": {len(text)}}}') for text in asked)
    )
    pictures = []
    for i in range(12):
        Pillow.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / f"{i}.png")
        pictures.append(pictured(i, Image(f"{i}.png", str(tmp_path))))
    assert check_examples(chats, "chat") == []
    assert check_examples(orders, "extract") == []
    assert check_examples(answered(*zip(asked, reversed(asked), strict=True)), "generate") == []
    assert check_examples(pictures, "generate") == []


ANY_TEXT = st.text(max_size=40) | st.sampled_from(
    [
        "",
        " ",
        "<|im_end|>",
        "<br>",
        '{"a": [1, {"b": null}]}',
        "[1",
        "锟斤拷",
        "Ã©",
        "\ud800",
        "a\x00b",
    ]
)
ANY_EXAMPLE = st.builds(
    lambda turns, label, group: (turns, label, group),
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "x"]), ANY_TEXT), max_size=5
    ),
    st.none() | ANY_TEXT,
    st.none() | st.sampled_from("gh"),
)


@given(st.lists(ANY_EXAMPLE, max_size=25), st.sampled_from(get_args(Task)))
@settings(max_examples=60, deadline=None)
def test_whatever_the_examples_every_row_named_is_theirs_and_errors_are_first(
    drawn: list[tuple[list[tuple[str, str]], str | None, str | None]], task: Task
) -> None:
    examples = [
        replace(conversation(row, *turns), label=label, group=group)
        for row, (turns, label, group) in enumerate(drawn)
    ]
    findings = check_examples(examples, task)
    assert findings == check_examples(examples, task)
    severities = [SEVERITIES.index(finding.severity) for finding in findings]
    assert severities == sorted(severities)
    ids = {example.id for example in examples}
    assert all(set(f.rows) <= ids and len(set(f.rows)) == len(f.rows) for f in findings)
    codes = [finding.code for finding in findings]
    assert len(codes) == len(set(codes))


def test_labels_that_programs_write_for_none_are_found() -> None:
    rows = made(("one", "a"), ("two", "NaN"), ("three", "none"), ("four", "#REF!"))
    (finding,) = missing_value(rows)
    assert (finding.code, finding.severity) == ("missing-value", "warning")
    assert finding.rows == (rows[1].id, rows[3].id)


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        ("Acount", "Account"), ("Acccount", "Account"), ("Accuont", "Account"),
        ("entertianmnet", "entertainment"),
    ],
)  # fmt: skip
def test_misspelt_labels_are_named_beside_the_common_one(rare: str, common: str) -> None:
    pairs = [(f"text {i}", (common, "b")[i % 2]) for i in range(40)]
    found = check_examples(made(*pairs, ("one more", rare)))
    assert [(f.code, f.severity, f.rows) for f in found] == [
        ("misspelt-label", "warning", ("data:42",))
    ]
    assert f"{rare!r} for {common!r}" in found[0].message


@pytest.mark.parametrize(
    ("rare", "common"),
    [
        ("unrelated", "related"), ("class 2", "class 1"), ("bad", "mad"), ("negative", "positive"),
        ("refund", "invoice"), ("2024-05", "2024-06"),
    ],
)  # fmt: skip
def test_rare_classes_of_their_own_are_not_misspelt(rare: str, common: str) -> None:
    pairs = [(f"text {i}", (common, "b")[i % 2]) for i in range(40)]
    assert list(codes(*pairs, ("one more", rare))) == ["rare-class"]


def test_as_many_of_both_are_two_classes() -> None:
    pairs = [(f"text {i}", ("accept", "except")[i % 2]) for i in range(8)]
    assert "misspelt-label" not in codes(*pairs)
