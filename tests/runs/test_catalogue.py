from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Figure
from kilotune.runs.catalogue import find_runs, select
from kilotune.runs.outcomes import AblationDocument
from kilotune.runs.query import parse_condition
from kilotune.runs.record import RunFolder
from tests.support.records import write_run

HALF, ALL = ["good", "bad"] * 5, ["good"] * 10


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "b", ALL, "tune.rank=4", started="2026-01-01T09:00:00")
    write_run(tmp_path / "inner" / "a", HALF, trained=10)
    stopped = write_run(tmp_path / "c", HALF, started="2026-01-01T11:00:00")
    (stopped / "verdict.json").unlink()
    (tmp_path / "a file.txt").write_text("")
    return tmp_path


def names(runs: Path, where: str | None = None, sort: str | None = None) -> list[str]:
    condition = parse_condition(where) if where else None
    return [str(e.fields["name"]) for e in select(find_runs([runs]), condition, sort)]


def test_runs_are_found_below_a_folder_oldest_first(runs: Path) -> None:
    assert names(runs) == ["b", "a", "c"]
    assert [e.folder for e in find_runs([runs / "b"])] == [runs / "b"]


def test_fields_are_settings_validation_figures_and_cost_and_nothing_of_the_test(
    runs: Path,
) -> None:
    fields = find_runs([runs / "inner"])[0].fields
    assert fields["val.accuracy"] == 0.5
    assert (fields["tune.rank"], fields["tune.stopping.patience"]) == (8, 2)
    assert (fields["seconds"], fields["tokens.trained"], fields["tokens.generated"]) == (10, 10, 50)
    assert (fields["state"], fields["verdict"], fields["examples.train"]) == (
        "finished", "healthy", 1,
    )  # fmt: skip
    assert [name for name in fields if name.startswith("test")] == []
    with pytest.raises(KilotuneError, match=r"no run has 'test\.accuracy'"):
        names(runs, "test.accuracy > 0.5")


def test_filters_and_orders(runs: Path) -> None:
    assert names(runs, "val.accuracy > 0.8 and tune.rank = 4") == ["b"]
    assert names(runs, "tune.rank = 8 and state = finished") == ["a"]
    assert names(runs, "state = unfinished") == ["c"]
    assert names(runs, sort="val.accuracy") == ["b", "a", "c"]  # what has none comes last
    assert names(runs, sort="-val.accuracy") == ["a", "b", "c"]
    assert names(runs, sort="-tokens.trained") == ["a", "b", "c"]


def test_a_run_that_cannot_be_read_is_listed_and_hides_no_other(runs: Path) -> None:
    for damaged in ("{", "{}", "null"):
        (runs / "b" / "data.json").write_text(damaged)
        assert names(runs) == ["a", "c", "b"]
        assert names(runs, "state = unreadable") == ["b"]


def test_of_an_ablation_its_final_run_is_listed_with_what_its_trials_came_to(
    tmp_path: Path,
) -> None:
    whole = write_run(tmp_path / "ablation", HALF)
    (whole / "folds.json").write_text("[]")
    with pytest.raises(KilotuneError, match="no run there"):
        find_runs([tmp_path])
    write_run(whole / "final", HALF)
    assert find_runs([tmp_path])[0].fields.get("out_of_fold") is None
    found = AblationDocument(
        ended="", verdict=None, out_of_fold=Figure(0.75, 0.7, 0.8), rungs=(), changes={}
    )
    RunFolder(whole).write(found)
    (only,) = find_runs([tmp_path])
    assert (only.fields["name"], only.fields["out_of_fold"]) == ("final", 0.75)


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="no run there"):
        find_runs([tmp_path])
    with pytest.raises(KilotuneError, match="no such folder"):
        find_runs([tmp_path / "none"])
