from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Figure
from kilotune.runs.comparison import compare
from kilotune.runs.cost import Cost, total
from tests.support.records import predictions, write_run

BEFORE = ["good"] * 10 + ["bad"] * 10
AFTER = ["bad"] * 2 + ["good"] * 16 + ["bad"] * 2


def test_two_runs_are_compared_on_validation_example_by_example(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", BEFORE)
    after = write_run(tmp_path / "b", AFTER, "tune.rank=4", "seed=1")
    found = compare(before.path, after.path)
    assert {name: (c.before, c.after) for name, c in found.changes.items()} == {
        "seed": (0, 1), "tune.rank": (8, 4),
    }  # fmt: skip
    assert (found.same_data, found.same_code) == (True, True)
    paired = found.validation
    assert paired is not None
    assert (paired.right.wins, paired.right.losses, paired.left_out) == (8, 2, 0)
    assert (paired.evidence.before, paired.evidence.after) == (0.5, 0.8)
    assert isinstance(paired.evidence.gain, Figure)
    assert paired.evidence.gain.value == pytest.approx(0.3)
    assert paired.evidence.decision == "unavailable"  # of one seed each
    assert [e.id for e in paired.changed if not e.better] == ["data:2", "data:3"]
    assert paired.changed[0].prompt == "text of data:2"
    assert (paired.changed[0].before, paired.changed[0].after) == ("good", "bad")


def test_only_examples_that_both_were_asked_count(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", BEFORE)
    after = write_run(tmp_path / "b", AFTER, first=7)  # 15 ids in common
    other = predictions({"data:7": "good"}, truth="bad")  # the same id, another answer
    rows = after.read_predictions("validation.parquet")[1:]
    after.write_predictions([*other, *rows], "validation.parquet")
    paired = compare(before.path, after.path).validation
    assert paired is not None
    assert paired.evidence.examples == 14
    assert paired.left_out == 11
    far = write_run(tmp_path / "c", AFTER, first=50)
    assert compare(before.path, far.path).validation is None


def test_the_test_part_is_apart(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", BEFORE).path, write_run(tmp_path / "b", AFTER).path)
    assert found.test is not None
    assert found.test.evidence.examples == 2
    assert (found.test.right.wins, found.test.right.losses) == (0, 1)


def test_curves_are_by_epoch(tmp_path: Path) -> None:
    found = compare(write_run(tmp_path / "a", BEFORE).path, write_run(tmp_path / "b", AFTER).path)
    first, second = found.curves[0]
    assert (first.epoch, first.loss, first.validation) == (1, 3.0, {"loss": 1.5})
    assert (second.epoch, second.validation) == (2, {})
    assert second.loss == pytest.approx((4 / 3 + 1) / 2)


def test_costs_are_compared_in_tokens(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", BEFORE)
    found = compare(before.path, write_run(tmp_path / "b", BEFORE, trained=500).path)
    assert found.costs == (Cost(10.0, 1000, 50), Cost(10.0, 500, 50))
    assert Cost(99, 500, 50).cheaper_than(Cost(1, 1000, 50))
    assert not Cost(1, 900, 50).cheaper_than(Cost(99, 1000, 50))  # less than a tenth
    assert total([Cost(1, 2, 3), Cost(0.5, 1, 1)]) == Cost(1.5, 3, 4)


def test_unfinished_runs_are_refused(tmp_path: Path) -> None:
    before, after = write_run(tmp_path / "a", BEFORE), write_run(tmp_path / "b", AFTER)
    (after / "verdict.json").unlink()
    with pytest.raises(KilotuneError, match="not finished"):
        compare(before.path, after.path)
