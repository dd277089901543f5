"""What the cache holds is made once, whole, by one process at a time."""

import subprocess
from pathlib import Path

import pytest

from kilotune.data import packages
from kilotune.data.packages import Package, fetch, made_once
from kilotune.errors import KilotuneError


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


def test_a_pip_in_the_current_folder_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("open('pip was run', 'w')\n")
    run = subprocess.run

    def importing(command: list[str], **how: bool) -> object:
        """The same Python, which loads pip and downloads nothing."""
        return run([*command[: command.index("-m")], "-c", "import pip"], **how)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KILOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages.subprocess, "run", importing)
    with pytest.raises(KilotuneError):
        fetch(Package("x", "1", "x-1.whl", "0" * 64))
    assert not (tmp_path / "pip was run").exists()
