"""Memory that the user limits below what torch takes is one line, not the end of the process."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli import memory_limit
from kilotune.cli.main import app


def test_torch_is_tried_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = memory_limit._FirstTried()
    monkeypatch.setattr(memory_limit, "TRY", "if {room} < 1_000_000_000: raise MemoryError")
    monkeypatch.setattr(memory_limit, "_limit", lambda: 10**18)
    assert finder.find_spec("torch", None) is None
    monkeypatch.setattr(memory_limit, "_limit", lambda: 1_000_000)
    with pytest.raises(MemoryError):
        finder.find_spec("torch", None)
    assert finder.find_spec("numpy", None) is None
    monkeypatch.setattr(memory_limit, "_limit", lambda: None)
    assert finder.find_spec("torch", None) is None


def test_the_real_trial_refuses_what_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "_limit", lambda: 10_000_000)
    with pytest.raises(MemoryError):
        memory_limit._FirstTried().find_spec("torch", None)


@pytest.mark.parametrize(
    ("trial", "lacks"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", True),
        ("raise ImportError('x.so: failed to map segment from shared object')", True),
        ("raise ImportError('libcudart.so.12: cannot open shared object file')", False),
        ("raise ValueError('another limit')", False),
    ],
)
def test_only_a_lack_of_memory_is_called_so(
    trial: str, lacks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limit, "TRY", trial)
    monkeypatch.setattr(memory_limit, "_limit", lambda: 10**18)
    with pytest.raises(MemoryError) if lacks else nullcontext():
        memory_limit._FirstTried().find_spec("torch", None)


def test_modules_in_the_current_folder_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("psutil", "resource", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} was run', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory_limit, "_limit", lambda: 10_000_000)
    with pytest.raises(MemoryError):
        memory_limit._FirstTried().find_spec("torch", None)
    assert not list(tmp_path.glob("* was run"))


def test_it_is_asked_once_and_only_under_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    memory_limit.watch_torch()
    assert sys.meta_path == []
    monkeypatch.setattr(memory_limit, "_limit", lambda: 1)
    memory_limit.watch_torch()
    memory_limit.watch_torch()
    assert len(sys.meta_path) == 1


def test_too_little_memory_is_one_line_of_a_command(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("kilotune.preparation.inspection.check", full)
    result = CliRunner().invoke(app, ["check", str(labelled)])
    assert result.exit_code == 2
    assert result.stderr.startswith("kilotune: not enough memory. Close other programs")
    assert "Traceback" not in result.stderr
