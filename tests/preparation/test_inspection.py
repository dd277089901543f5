from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.preparation.inspection import Inspection, Reading, check, read_probabilities
from tests.support.made import classified, sentences


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [f'"{text}",{label}' for text, label in rows]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def labelled(count: int) -> list[tuple[str, str]]:
    return [(text, ("odd", "even")[i % 2]) for i, text in enumerate(sentences(count))]


def rows_by_code(inspection: Inspection) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.rows for finding in inspection.findings}


def test_a_clean_file_is_described_and_has_no_findings(tmp_path: Path) -> None:
    found = check([write(tmp_path / "a.csv", labelled(80))], reading=Reading())
    assert found.findings == ()
    assert all(finding.severity == "note" for finding in found.findings)
    assert (found.task, found.format) == ("classify", "text-label")
    assert found.title == "text and label columns"
    assert found.examples == {"data": 80}
    assert found.classes == {"odd": 40, "even": 40}
    assert found.prompt_tokens is not None
    assert (found.prompt_tokens.estimated, found.prompt_tokens.median) == (True, 12)


def test_parts_given_as_files_are_checked_against_each_other(tmp_path: Path) -> None:
    rows = labelled(100)
    long = "the letter that came on the first day of spring was lost behind the old wooden desk"
    train = write(tmp_path / "train.csv", [*rows[:80], (long, "odd")])
    val = write(tmp_path / "val.csv", [*rows[80:90], (rows[0][0].upper(), "odd"), ("", "odd")])
    test = write(
        tmp_path / "test.csv", [*rows[90:], rows[80], (long.replace("lost", "found"), "none")]
    )
    found = check([train], reading=Reading(), validation=val, test=test)
    by_code = {(f.code, f.rows) for f in found.findings}
    assert by_code == {
        ("empty-text", ("validation:13",)),
        ("unseen-label", ("test:13",)),
        ("leakage", ("validation:12",)),
        ("leakage", ("test:12",)),
        ("near-leakage", ("test:13",)),
    }
    assert found.examples == {"data": 81, "validation": 12, "test": 12}
    assert found.findings[0].severity == "error"


def test_several_files_are_one_training_file_and_keep_their_names(tmp_path: Path) -> None:
    rows = labelled(40)
    first = write(tmp_path / "first.csv", rows[:20])
    second = write(tmp_path / "second.csv", [*rows[20:], rows[0]])
    found = check([first, second], reading=Reading())
    assert rows_by_code(found) == {"duplicate": ("second:22",)}
    assert found.examples == {"data": 41}


def test_ids_of_several_files_and_of_the_parts_never_clash(tmp_path: Path) -> None:
    rows = labelled(60)
    (tmp_path / "a").mkdir()
    train = write(tmp_path / "train.csv", rows[:20])
    named_test = write(tmp_path / "test.csv", [*rows[20:40], rows[0]])
    held_out = write(tmp_path / "a" / "held.csv", [*rows[50:], rows[20]])
    found = check([train, named_test], reading=Reading(), test=held_out)
    by_code = rows_by_code(found)
    assert by_code["duplicate"] == (f"{named_test}:22",)
    assert by_code["leakage"] == ("test:12",)
    with pytest.raises(KilotuneError, match=r"train.csv: the same file twice"):
        check([train, train], reading=Reading())


def test_a_class_that_the_split_would_lose_is_named(tmp_path: Path) -> None:
    rows = [*labelled(60), *((f"{text} at last", "rare") for text in sentences(66)[60:62])]
    found = check([write(tmp_path / "a.csv", rows)], reading=Reading())
    codes = {finding.code: finding for finding in found.findings}
    assert set(codes) == {"rare-class", "empty-class-in-part"}
    assert "'rare' in" in codes["empty-class-in-part"].message


def test_what_cannot_be_split_is_an_error_and_what_is_too_large_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [
        [text, "ab"[i % 2], "one" if i < 30 else f"g{i}"] for i, text in enumerate(sentences(60))
    ]
    path.write_text("text,label,author\n" + "".join(",".join(row) + "\n" for row in rows))
    found = check([path], reading=Reading(group="author")).findings
    assert [(f.code, f.severity, len(f.rows)) for f in found] == [("kept-together", "warning", 30)]
    path.write_text("text,label,author\n" + "".join(f"{t},{c},one\n" for t, c, _ in rows))
    (finding,) = check([path], reading=Reading(group="author")).findings
    assert (finding.code, finding.severity) == ("kept-together", "error")
    assert "none can be held out" in finding.message


def test_wrong_labels_are_doubted_by_words(tmp_path: Path) -> None:
    rows = [(f"{text}, {('great', 'awful')[i % 2]} it was", ("good", "bad")[i % 2])
            for i, text in enumerate(sentences(100))]  # fmt: skip
    rows[17] = (rows[17][0], "good")
    path = write(tmp_path / "a.csv", rows)
    assert rows_by_code(check([path], reading=Reading(), label_errors=True)) == {
        "suspicious-label": ("data:19",)
    }
    assert check([path], reading=Reading()).findings == ()


@pytest.mark.parametrize("key", ["id", "row"])
def test_wrong_labels_are_doubted_by_given_predictions(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.csv", labelled(40))
    lines = [f"{key},odd,even"]
    for i in reversed(range(40)):
        odd, even = (0.9, 0.1) if i % 2 == 0 and i != 6 else (0.1, 0.9)
        lines.append(f"{'data:' if key == 'id' else ''}{i + 2},{odd},{even}")
    given = tmp_path / "folds.csv"
    given.write_text("\n".join(lines) + "\n")
    found = check([path], reading=Reading(), probabilities=given)
    assert rows_by_code(found) == {"suspicious-label": ("data:8",)}
    assert all(finding.severity == "note" for finding in found.findings)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,a,b\n2,1,0\n", "no column 'id' or 'row'"),
        ("id,a\ndata:2,1\n", "no columns for the labels b"),
        ("id,a,b\ndata:2,1,0\n", "no row for data:3"),
        ("id,a,b\ndata:2,1,0\ndata:3,much,0\n", "no probabilities on line 3"),
        ("id,a,b\ndata:2,1,0\ndata:3,7,0\n", "no probabilities on line 3"),
    ],
)
def test_unusable_predictions_are_one_clear_error(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(KilotuneError) as caught:
        read_probabilities(path, classified(("x", "a"), ("y", "b")), ["a", "b"])
    assert words in str(caught.value)
    assert caught.value.fix


def test_files_are_named_by_texts_too_and_read_as_they_are_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", labelled(80))
    assert check([str(path)]) == check([path], reading=Reading())


def test_a_class_of_one_example_accuses_no_others(tmp_path: Path) -> None:
    words = {"sport": "match goal team", "money": "bank price loan"}
    lines = ["text,label"]
    for n in range(80):
        label = ("sport", "money")[n % 2]
        said = words[label].split()
        lines.append(f"the {said[n % 3]} of {said[(n // 3) % 3]} in week {n},{label}")
    lines.append("the goal of the only one,weather")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    found = {f.code: f for f in check([path], label_errors=True).findings}
    assert "suspicious-label" not in found
    assert "'weather' (1)" in found["rare-not-judged"].message


def test_the_texts_of_a_findings_first_rows_are_quoted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f"text number {n} of {n * 7},{'ab'[n % 2]}" for n in range(20)]
    long = "a long text " * 10
    path.write_text("\n".join(["text,label", *rows, f"<b>{long}</b>,a", "mail a@b.org,b"]))
    texts = check([path]).texts
    assert texts["data:22"].startswith("<b>a long text a long")
    assert (len(texts["data:22"]), texts["data:22"][-1]) == (60, "…")
    assert "data:23" not in texts
