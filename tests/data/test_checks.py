import pytest

from kilotune.data.checks import check_examples, check_leakage, check_unseen_labels
from kilotune.data.example import Example, Message, Origin
from kilotune.data.finding import stop_on_errors
from kilotune.errors import KilotuneError


def made(*pairs: tuple[str, str | None]) -> list[Example]:
    return [
        Example(f"data:{row}", (Message("user", text),), Origin("a.csv", row), label)
        for row, (text, label) in enumerate(pairs, 2)
    ]


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


def test_label_variants_are_an_error_that_names_them() -> None:
    finding, rare = check_examples(made(*clean(), ("more", "Ａ.")))
    assert rare.code == "rare-class"
    assert (finding.code, finding.severity) == ("label-variants", "error")
    assert "'a' and 'Ａ.'" in finding.message
    assert len(finding.rows) == 11


def test_duplicates_are_found_across_case_width_and_spaces() -> None:
    found = codes(*clean(), ("Ｔｅｘｔ   0", "a"))
    assert found == {"duplicate": ("data:22",)}


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
    message = str(caught.value)
    assert message.startswith("a.csv: ")
    assert all(
        part in message for part in ("without text", "without a label", "only 2 different texts")
    )
