"""One process at a time writes a file, and what a killed one left goes."""

import fcntl
from contextlib import ExitStack
from pathlib import Path

import pytest

from kilotune.data.files.claims import check_new, claimed, held
from kilotune.errors import KilotuneError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_one_process_at_a_time_and_nothing_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with (
        claimed(out),
        pytest.raises(
            KilotuneError, match=r"out\.csv: locked: another kilotune process is writing to it"
        ),
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


def test_a_removed_lock_is_not_held_beside_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "x.lock"
    flock, others = fcntl.flock, []

    def late(file: int, how: int) -> None:
        """Between the opening and the locking its holder removed it, and another one made it."""
        if not others:
            lock.unlink()
            others.append(lock.open("wb"))
            flock(others[0].fileno(), fcntl.LOCK_EX)
        flock(file, how)

    monkeypatch.setattr("fcntl.flock", late)
    with pytest.raises(KilotuneError, match="locked"), held(lock, tmp_path):
        pass
    others[0].close()
    with held(lock, tmp_path):
        pass


def test_who_waits_says_so_once_and_then_holds_it(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with ExitStack() as other:
        other.enter_context(held(lock, tmp_path))
        said = []

        def wait() -> None:
            said.append("waiting")
            other.close()

        with (
            held(lock, tmp_path, wait=wait),
            pytest.raises(KilotuneError, match="locked"),
            held(lock, tmp_path),
        ):
            pass
    assert said == ["waiting"]


def test_what_a_process_left_that_was_killed_at_its_end_goes(tmp_path: Path) -> None:
    out, beside = tmp_path / "out.csv", tmp_path / "beside.csv"
    for name in ("out.csv", "beside.csv", ".out.csv.kilotune.lock", ".out.csv.12.part"):
        (tmp_path / name).write_text("whole")
    with pytest.raises(KilotuneError, match=r"out\.csv: the file exists"):
        check_new(out, beside)
    assert names(tmp_path) == ["beside.csv", "out.csv"]


def test_a_lock_that_its_holder_took_away_is_made_again(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with held(lock, tmp_path):
        lock.unlink()
    with held(lock, tmp_path):
        assert lock.exists()
