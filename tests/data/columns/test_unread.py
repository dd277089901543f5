"""Columns that nothing is read from: what they hold decides what is said, and how bad it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kilotune.data.column_plan import Reading
from kilotune.data.example import Example
from kilotune.data.finding import Finding
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.errors import KilotuneError
from kilotune.preparation.inspection import check
from kilotune.preparation.prepare import Files, check_files
from tests.support.wordy import words, write_rows

Row = Callable[[int], dict[str, Any]]


def read(tmp_path: Path, row: Row, count: int = 40, **options: Any) -> Dataset:
    return load_dataset(write_rows(tmp_path / "a.jsonl", row, count), Reading(**options))


def judged(data: Dataset) -> list[tuple[str, str, str]]:
    """Of each finding on an unread column its code, severity and column."""
    return [
        (f.code, f.severity, f.values["column"])
        for f in data.findings
        if f.code.startswith("unread-")
    ]


def labelled(n: int) -> dict[str, Any]:
    return {"text": words(n), "label": "ab"[n % 2]}


def asked(n: int) -> dict[str, Any]:
    return {"prompt": words(n, of="asked"), "completion": words(n, 3, of="said") + f" {n}"}


CHAT = [{"role": "user", "content": "<video>And then?"}, {"role": "assistant", "content": "Rain."}]

KINDS: list[tuple[str, Row, tuple[str, str, str]]] = [
    # Texts that differ by row.
    (
        "a text beside a text",
        lambda n: {**labelled(n), "summary": words(n, 9, "s")},
        ("unread-text", "warning", "summary"),
    ),
    (
        "a long text beside a short question",
        lambda n: {**asked(n), "manual": words(n, 60, "m")},
        ("unread-text", "error", "manual"),
    ),
    (
        "the text that the answer is taken from",
        lambda n: {
            "prompt": f"Which {n} is it, and where does it stand?",
            "completion": words(n, 2, "said"),
            "extract": f"{words(n, 3, 'x')} {words(n, 2, 'said')} {words(n, 3, 'y')}",
        },
        ("unread-text", "error", "extract"),
    ),
    (
        "turns before the question",
        lambda n: {**asked(n), "earlier": [{"role": "user", "content": words(n, 4, "e")}]},
        ("unread-text", "error", "earlier"),
    ),
    (
        "a context beside a conversation",
        lambda n: {
            "messages": [
                {"role": "user", "content": f"{n}?"},
                {"role": "assistant", "content": f"y {n}"},
            ],
            "context": words(n, 40, "c"),
        },
        ("unread-text", "error", "context"),
    ),
    (
        "what can be chosen from",
        lambda n: {**asked(n), "options": [words(n, 1, "o"), words(n, 1, "p")]},
        ("unread-options", "error", "options"),
    ),
    (
        "each choice in a column of its own",
        lambda n: {**asked(n), "A": words(n, 2, "a"), "B": words(n, 2, "b")},
        ("unread-options", "error", "A, B"),
    ),
    (
        "turns before an instruction",
        lambda n: {"instruction": words(n), "output": f"{n}", "chat": [[words(n, 3), f"{n}"]]},
        ("unread-text", "error", "chat"),
    ),
    # Files and media.
    (
        "documents",
        lambda n: {**asked(n), "file": f"manual {n}.pdf"},
        ("unread-media", "warning", "file"),
    ),
    (
        "videos",
        lambda n: {"messages": CHAT, "clips": [f"{n}.mp4"]},
        ("unread-media", "error", "clips"),
    ),
    ("sounds", lambda n: {**asked(n), "audio": f"{n}.bin"}, ("unread-media", "warning", "audio")),
    (
        "pictures",
        lambda n: {**asked(n), "screenshot": f"shots/{n}.PNG"},
        ("unread-pictures", "warning", "screenshot"),
    ),
    # Verdicts and states.
    (
        "accepted and rejected",
        lambda n: {**labelled(n), "decision": ("Accept", "Reject", "Skip")[n % 3]},
        ("unread-verdict", "error", "decision"),
    ),
    (
        "states",
        lambda n: {**labelled(n), "state": ("done", "in progress")[n % 2]},
        ("unread-verdict", "warning", "state"),
    ),
    (
        "Chinese states",
        lambda n: {**labelled(n), "审核": ("通过", "驳回")[n % 2]},
        ("unread-verdict", "warning", "审核"),
    ),
    (
        "flags where true is bad",
        lambda n: {**labelled(n), "is_deleted": n % 4 == 0},
        ("unread-verdict", "error", "is_deleted"),
    ),
    (
        "flags where false is bad, as numbers",
        lambda n: {**labelled(n), "reviewed": n % 2},
        ("unread-verdict", "error", "reviewed"),
    ),
    (
        "flags that may be what the row is about, a verified purchase",
        lambda n: {**labelled(n), "verified": n % 2},
        ("unread-verdict", "warning", "verified"),
    ),
    (
        "a single rejected row",
        lambda n: {**labelled(n), "answer": "reject" if n == 3 else "accept"},
        ("unread-verdict", "warning", "answer"),
    ),
    (
        "thumbs beside answers",
        lambda n: {**asked(n), "label": n % 3 > 0},
        ("unread-verdict", "error", "label"),
    ),
    (
        "ratings of answers",
        lambda n: {**asked(n), "rating": n % 5 + 1},
        ("unread-rating", "warning", "rating"),
    ),
    (
        "which answer is better",
        lambda n: {**asked(n), "winner": ("model_a", "model_b")[n % 2]},
        ("unread-preference", "warning", "winner"),
    ),
    # The rest.
    (
        "parts",
        lambda n: {**labelled(n), "usage": ("Training", "dev", "test")[n % 3]},
        ("unread-split", "warning", "usage"),
    ),
    (
        "a flag of the test part",
        lambda n: {**labelled(n), "is_test": n % 4 == 0},
        ("unread-split", "warning", "is_test"),
    ),
    (
        "weights",
        lambda n: {**labelled(n), "sample_weight": 1 + n % 2},
        ("unread-weight", "warning", "sample_weight"),
    ),
    (
        "another annotator's labels",
        lambda n: {**labelled(n), "second": "ab"[(n + n // 7) % 2]},
        ("unread-label", "warning", "second"),
    ),
    (
        "rows that follow on others",
        lambda n: {**asked(n), "id": f"m{n}", "parent_id": f"m{n - 1}" if n % 2 else None},
        ("unread-reference", "warning", "parent_id"),
    ),
    (
        "what several rows belong to",
        lambda n: {**labelled(n), "patient_id": f"p{n // 3}"},
        ("unread-group", "note", "patient_id"),
    ),
    (
        "remarks on the answer",
        lambda n: {**labelled(n), "rationale": words(n, 12, "r")},
        ("unread-remarks", "note", "rationale"),
    ),
]


@pytest.mark.parametrize(("row", "expected"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_each_kind_is_named_as_bad_as_it_is(
    row: Row, expected: tuple[str, str, str], tmp_path: Path
) -> None:
    assert judged(read(tmp_path, row)) == [expected]


@pytest.mark.parametrize(("row", "expected"), [k[1:] for k in KINDS], ids=[k[0] for k in KINDS])
def test_what_is_meant_to_be_left_out_is_not_said_again(
    row: Row, expected: tuple[str, str, str], tmp_path: Path
) -> None:
    assert judged(read(tmp_path, row, ignore=tuple(expected[2].split(", ")))) == []


@pytest.mark.parametrize(
    "column",
    [
        lambda n: n,
        lambda n: f"2024-05-{n % 28 + 1:02}",
        lambda n: f"https://example.org/a/page/{n}",
        lambda n: f"user{n}@example.org",
        lambda n: ("Smith", "Jones", "Miller")[n % 3] + f" {'ABCDEF'[n % 6]}.",
        lambda n: ("en", "de")[n % 2],
        lambda n: f"{n:032x}",
        lambda n: ("open", "closed", "pending")[n % 3],
        lambda n: None,
        lambda n: ["a", "b"][n % 2],
        lambda n: words(n).upper(),
        lambda n: words(n) + " indeed",
        lambda n: "The same sentence in every row of the file.",
        lambda n: [0.1 * n, 0.2],
    ],
)
def test_columns_of_no_consequence_are_only_listed(
    column: Callable[[int], Any], tmp_path: Path
) -> None:
    data = read(tmp_path, lambda n: {**labelled(n), "extra": column(n)})
    assert judged(data) == []
    assert data.unused == ("extra",)


def test_columns_that_kilotune_wrote_are_known(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {**labelled(n), "why": f"'a' 0.5{n}, 'b' 0.4{n}; like 3 other rows", "rank": n}

    assert judged(read(tmp_path, row)) == []


def test_labels_in_other_words_are_the_label_again(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: {**labelled(n), "label_name": ("Apple pie now", "Bee")[n % 2]})
    assert judged(data) == []


def test_the_rows_and_the_option_are_named(tmp_path: Path) -> None:
    data = read(tmp_path, lambda n: {**labelled(n), "the state": ("ok", "discarded")[n % 2]}, 10)
    (said,) = data.findings
    assert said.rows == ("data:2", "data:4", "data:6", "data:8", "data:10")
    assert "--keep 'the state=ok'" in said.fix
    assert "--ignore 'the state'" in said.fix
    kept = read(
        tmp_path,
        lambda n: {**labelled(n), "the state": ("ok", "discarded")[n % 2]},
        20,
        keep=("the state=ok",),
    )
    assert [example.origin.row for example in kept.examples] == list(range(1, 21, 2))
    assert [finding.code for finding in kept.findings] == ["rows-kept"]


def options(said: Finding) -> dict[str, Any]:
    """The options that a finding's fix names first, as Reading has them."""
    found: dict[str, Any] = {"columns": {}}
    for word in said.values["option"].replace("--", "\n--").split("\n")[1:]:
        name, _, value = word.strip().partition(" ")
        value = value.strip("'")
        if name == "--column":
            field, _, column = value.partition("=")
            found["columns"][field] = (*found["columns"].get(field, ()), column)
        elif name == "--text":
            found["text"] = (*found.get("text", ()), value)
        elif name == "--keep":
            found["keep"] = (*found.get("keep", ()), value)
        else:
            found[name[2:]] = value
    return found


@pytest.mark.parametrize(
    ("row", "column", "shown"),
    [
        (KINDS[0][1], "summary", "text: {0}\nsummary: {1}"),
        (KINDS[1][1], "manual", "manual: {1}\nprompt: {0}"),
    ],
)
def test_the_option_reads_the_column(row: Row, column: str, shown: str, tmp_path: Path) -> None:
    (said,) = read(tmp_path, row).findings
    data = read(tmp_path, row, **options(said))
    assert judged(data) == []
    first = row(0)
    own = first.get("text") or first["prompt"]
    assert {data.examples[0].text} & {
        shown.format(own, first[column]),
        f"{column}: {first[column]}\ntext: {own}",
    }


@pytest.mark.parametrize(
    "name",
    ["what can be chosen from", "each choice in a column of its own", "turns before an instruction",
     "pictures", "accepted and rejected", "ratings of answers", "weights", "parts"],
)  # fmt: skip
def test_the_other_options_silence_what_they_answer(name: str, tmp_path: Path) -> None:
    row = next(row for kind, row, _ in KINDS if kind == name)
    (said,) = read(tmp_path, row).findings
    assert judged(read(tmp_path, row, **options(said))) == []


def test_a_template_that_holds_prompt_and_answer_is_no_other_text(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, Any]:
        return {**asked(n), "whole": f"### {asked(n)['prompt']}\n### {asked(n)['completion']}"}

    assert judged(read(tmp_path, row)) == []


def test_a_context_goes_before_a_conversation_as_its_system_message(tmp_path: Path) -> None:
    row = KINDS[4][1]
    data = read(tmp_path, row, **options(read(tmp_path, row).findings[0]))
    assert [m.role for m in data.examples[0].messages] == ["system", "user", "assistant"]
    assert data.examples[0].messages[0].content == row(0)["context"]


def test_errors_stop_a_run_and_warnings_do_not(tmp_path: Path) -> None:
    bad = read(tmp_path, KINDS[1][1])
    with pytest.raises(KilotuneError, match="'manual'"):
        check_files(Files(bad, None, None))
    check_files(Files(read(tmp_path, KINDS[0][1]), None, None))


def test_new_rows_are_not_judged(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", KINDS[1][1])
    assert judged(load_dataset(path, answered=False)) == []


def test_parts_beside_the_file_are_not_judged_again(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", KINDS[0][1])
    other = write_rows(tmp_path / "b.jsonl", lambda n: KINDS[0][1](n + 100))
    found = [f.code for f in check([path], test=other).findings]
    assert found.count("unread-text") == 1


def test_few_rows_tell_nothing(tmp_path: Path) -> None:
    assert judged(read(tmp_path, KINDS[1][1], 7)) == []


def test_examples_are_the_same_whatever_is_unread(tmp_path: Path) -> None:
    def bare(examples: tuple[Example, ...]) -> list[str]:
        return [e.text for e in examples]

    plain = bare(read(tmp_path, asked).examples)
    for _, row, (_, _, column) in KINDS:
        if "prompt" in row(0) and column in row(0):
            data = read(tmp_path, lambda n, row=row, c=column: {**asked(n), c: row(n)[c]})  # type: ignore[misc]
            assert bare(data.examples) == plain
