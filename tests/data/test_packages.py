"""What the cache holds is made once, whole, by one process at a time."""

from pathlib import Path

import pytest

from kilotune.data.packages import made_once


def make(folder: Path) -> None:
    (folder / "weights").write_text("whole")


def test_a_folder_is_made_once_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    target = tmp_path / "models" / "tiny"
    half = target.parent / ".tiny.12.part"
    half.mkdir(parents=True)
    (half / "weights").write_text("half")
    assert made_once(target, make) == target
    assert (target / "weights").read_text() == "whole"
    assert not half.exists()
    assert made_once(target, lambda folder: pytest.fail("made again")) == target


def test_a_folder_that_could_not_be_made_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "tiny"

    def fails(folder: Path) -> None:
        make(folder)
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        made_once(target, fails)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    made_once(target, make)
    assert target.is_dir()
