"""One process at a time writes a file, and what a killed one left goes."""

from pathlib import Path

import pytest

from kilotune.data.claims import claimed, held
from kilotune.errors import KilotuneError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_process_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with (
        claimed(out),
        pytest.raises(KilotuneError, match=r"out\.csv: another process is writing it"),
        claimed(out),
    ):
        pass
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="in the work"), claimed(out):
        raise ValueError("in the work")
    assert names(tmp_path) == []


def test_what_a_killed_process_left_half_written_goes_and_nothing_of_the_users(
    tmp_path: Path,
) -> None:
    out, beside = tmp_path / "out.csv", tmp_path / "out.csv.changes.jsonl"
    mine = [".out.csv.part", ".other.csv.12.part", "out.csv.12.part", ".out.csv.x.part"]
    for name in [*mine, ".out.csv.12.part", ".out.csv.changes.jsonl.7.part"]:
        (tmp_path / name).write_text("half")
    with claimed(out, beside):
        out.write_text("whole")
    assert names(tmp_path) == sorted([*mine, "out.csv"])


def test_files_beside_are_refused_unless_a_process_was_killed(tmp_path: Path) -> None:
    out, beside = tmp_path / "out.csv", tmp_path / "beside.csv"
    beside.write_text("there")
    with pytest.raises(KilotuneError, match=r"beside\.csv: the file exists"), claimed(out, beside):
        pass
    lock = tmp_path / ".out.csv.kilotune.lock"
    lock.touch()
    with pytest.raises(ValueError, match="again"), claimed(out, beside):
        raise ValueError("failed again")
    assert lock.exists()  # what is beside may still be from the killed one
    with claimed(out, beside):
        out.write_text("whole")
    assert names(tmp_path) == ["beside.csv", "out.csv"]


def test_a_lock_that_its_holder_took_away_is_made_again(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with held(lock, tmp_path):
        lock.unlink()
    with held(lock, tmp_path):
        assert lock.exists()
