from pathlib import Path
from typing import Any

import pytest

from kilotune.data.column_plan import Reading
from kilotune.data.finding import FindingsError
from kilotune.data.normalise import Dataset
from kilotune.errors import KilotuneError
from kilotune.preparation.inspection import check
from kilotune.preparation.prepare import NewRows, Prepared, prepare, read_unanswered
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from tests.support.made import sentences


def write(path: Path, texts: list[str], labels: str = "ab") -> Path:
    rows = [f'"{text}",{labels[i % len(labels)]}' for i, text in enumerate(texts)]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def prepared(train: Path, **parts: Path) -> Prepared:
    tree = {"data": {"train": train, **parts}}
    return prepare(load_recipe(None, preset=None, settings=tree, overrides=()), Silent())


def test_a_class_that_a_part_lacks_is_found_after_the_split(tmp_path: Path) -> None:
    texts = sentences(63)
    train = write(tmp_path / "a.csv", texts, "ab" * 30 + "ccc")
    findings = {finding.code: finding for finding in prepared(train).findings}
    assert set(findings) == {"rare-class", "empty-class-in-part"}
    parts = prepared(train).parts
    lacking = [n for n, part in parts.named().items() if all(e.label != "c" for e in part)]
    assert all(f"'c' in {name}" in findings["empty-class-in-part"].message for name in lacking)
    assert lacking


def test_given_parts_are_held_against_training_and_each_other(tmp_path: Path) -> None:
    texts = sentences(80)
    found = prepared(
        write(tmp_path / "train.csv", texts[:50]),
        validation=write(tmp_path / "val.csv", [*texts[50:60], texts[0]]),
        test=write(tmp_path / "test.csv", [*texts[60:70], "<br>" + texts[70], texts[50]]),
    ).findings
    assert [(f.code, f.rows) for f in found] == [
        ("leakage", ("validation:12",)),
        ("html-remains", ("test:12",)),
        ("leakage", ("test:13",)),
    ]


def test_faults_of_rows_in_a_given_part_stop_the_run(tmp_path: Path) -> None:
    texts = sentences(60)
    test = write(tmp_path / "test.csv", [texts[51], ""])
    with pytest.raises(KilotuneError) as caught:
        prepared(write(tmp_path / "train.csv", texts[:50]), test=test)
    assert str(caught.value).startswith(f"{test}: rows without text (1): test:3")


def test_errors_of_all_files_come_together_each_with_its_own_remedy(tmp_path: Path) -> None:
    texts = sentences(60)
    train = write(tmp_path / "train.csv", [*texts[:40], ""])
    val = write(tmp_path / "val.csv", texts[40:50], "abc")
    with pytest.raises(FindingsError) as caught:
        prepared(train, validation=val, test=write(tmp_path / "test.csv", texts[50:]))
    assert caught.value.where == f"{train}, {val}"
    assert [(f.code, f.rows) for f in caught.value.findings] == [
        ("empty-text", ("data:42",)),
        ("unseen-label", ("validation:4", "validation:7", "validation:10")),
    ]
    assert all(finding.fix in str(caught.value) for finding in caught.value.findings)


def test_repeats_never_straddle_the_parts_of_a_run(tmp_path: Path) -> None:
    texts = sentences(40)
    again = [f"{text}!" for text in texts[:20]]
    parts = prepared(write(tmp_path / "a.csv", [*texts, *again])).parts.named()
    home = {example.id: name for name, part in parts.items() for example in part}
    assert [home[f"data:{i + 2}"] for i in range(20)] == [home[f"data:{i + 42}"] for i in range(20)]
    assert all(len(part) > 5 for part in parts.values())


@pytest.mark.parametrize(
    ("rows", "size", "epochs"), [(20, 8, 20), (50, 8, 20), (100, 8, 10), (300, 8, 3), (100, 4, 5)]
)
def test_few_examples_are_learnt_from_in_more_epochs(
    rows: int, size: int, epochs: int, tmp_path: Path
) -> None:
    """Four fifths of them, in batches of `size`: about a hundred steps."""
    texts = sentences(rows + 20)
    lines = [f"{text},{('a', 'b')[i % 2]}" for i, text in enumerate(texts)]
    for name, part in (("train", lines[:rows]), ("test", lines[rows:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *part]))
    settings = {"data": {name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}}

    def settled(*overrides: str) -> float:
        sized = [f"tune.batch_size={size}", *overrides]
        recipe = load_recipe(settings=settings, overrides=sized)
        return prepare(recipe, Silent()).recipe.tune.passes

    assert settled() == epochs
    assert settled("tune.epochs=2") == 2
    assert settled(f"tune.epochs={epochs}") == epochs


def test_epochs_that_are_not_settled_are_no_number(tmp_path: Path) -> None:
    recipe = load_recipe(settings={"data": {"train": str(tmp_path / "a.csv")}})
    assert recipe.tune.epochs == "auto"
    with pytest.raises(ValueError, match="prepare"):
        _ = recipe.tune.passes


def test_rows_of_a_part_are_kept_by_the_columns_that_its_file_has(tmp_path: Path) -> None:
    texts = sentences(60)
    rows = [f'"{t}",{"ab"[n % 2]},{("accept", "reject")[n // 2 % 4 == 0]}' for n, t in
            enumerate(texts[:40])]  # fmt: skip
    train = tmp_path / "train.csv"
    train.write_text("\n".join(["text,label,answer", *rows]) + "\n")
    test = write(tmp_path / "test.csv", texts[40:])
    keep = ("answer=accept",)
    tree = {"data": {"train": train, "test": test, "keep": keep}}
    parts = prepare(load_recipe(settings=tree), Silent()).parts
    assert len(parts.test) == 20
    assert len([*parts.train, *parts.validation]) == sum("accept" in row for row in rows)
    found = check([train], reading=Reading(keep=keep), test=test)
    assert found.examples["test"] == 20


def test_new_rows_name_as_many_columns_as_were_joined_in_training(tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("Subject,Body,Words\na film,it was fine,a film\n")
    recipe = load_recipe(settings={"data.train": write(tmp_path / "a.csv", sentences(20))})

    def read_by(columns: dict[str, Any]) -> Dataset:
        return read_unanswered(NewRows(new, columns), recipe, "text-label", ())[0]

    # By its usual name the training file had one column of texts.
    with pytest.raises(KilotuneError, match=r"the text was trained on 1 column .*, not on 2"):
        read_by({"text": ("Subject", "Body")})
    assert [example.text for example in read_by({"text": "Words"}).examples] == ["a film"]
