"""Limits of containers count where they are lower than the machine's memory."""

from pathlib import Path

import pytest

from kilotune.system import free_memory as module
from kilotune.system.free_memory import FILES, free_memory


def group(folder: Path, kind: str, limit: str, taken: int, reclaimable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    most, current, inactive = FILES[kind]
    (folder / most).write_text(f"{limit}\n")
    (folder / current).write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{inactive} {reclaimable}\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    class Memory:
        available = 1_000

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    monkeypatch.setattr(module, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(module, "MINE", tmp_path / "mine")
    return tmp_path / "cgroup"


def test_without_limits_the_machine_counts(root: Path) -> None:
    assert free_memory() == 1_000
    module.MINE.write_text("0::/user/shell\n")
    assert free_memory() == 1_000
    group(root / "user", "", "max", 100, 0)
    group(root / "user" / "shell", "", "5000", 100, 0)
    assert free_memory() == 1_000


@pytest.mark.parametrize(("kind", "line"), [("", "0::/a/b"), ("memory", "4:cpu,memory:/a/b")])
@pytest.mark.parametrize("place", ["a/b", "a", ""])
def test_the_lowest_limit_counts_wherever_it_is_set(
    kind: str, line: str, place: str, root: Path
) -> None:
    module.MINE.write_text(f"9:name=systemd:/\n{line}\n")
    group(root / kind / place, kind, "500", 300, 120)
    assert free_memory() == 500 - 300 + 120
    group(root / kind / place, kind, "500", 900, 0)
    assert free_memory() == 0
