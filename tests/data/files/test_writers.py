"""Whatever is written is there whole or not at all."""

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kilotune.data.files.readers import read_table
from kilotune.data.files.writers import (
    WRITERS,
    check_writable,
    on_disk,
    remove_leftovers,
    table_bytes,
    write_atomically,
    write_together,
    written_atomically,
)
from kilotune.errors import KilotuneError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def interrupted(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.json"]


def test_a_library_writes_to_another_name_and_its_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"

    def write(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(part))

    with pytest.raises(OSError, match="No space left") as caught, written_atomically(path) as part:
        write(part)
    assert caught.value.filename == str(path)
    assert names(tmp_path) == []


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "model"

    def save(part: Path) -> None:
        part.mkdir()
        (part / "weights").write_bytes(b"1")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), written_atomically(out) as part:
        save(part)
    assert names(tmp_path) == []
    with written_atomically(out) as part:
        part.mkdir()
        (part / "weights").write_bytes(b"1")
    assert (out / "weights").read_bytes() == b"1"
    assert names(tmp_path) == ["model"]


def test_files_that_belong_together_are_all_written_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {tmp_path / name: name.encode() for name in ("a", "b", "main")}
    replace, calls = os.replace, []

    def fails(source: Path, target: Path) -> None:
        calls.append(target.name)
        if len(calls) == stop:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("os.replace", fails)
    for stop in (1, 2, 3):
        calls.clear()
        with pytest.raises(OSError, match="Input/output") as caught:
            write_together(files)
        assert caught.value.filename == str(tmp_path / ("a", "b", "main")[stop - 1])
        assert names(tmp_path) == []
    stop = 0
    calls.clear()
    write_together(files)
    assert calls == ["a", "b", "main"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"a", "b": b"b", "main": b"main",
    }  # fmt: skip


def test_of_files_that_belong_together_one_of_other_content_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(KilotuneError, match="b: the file exists"):
        write_together({tmp_path / "a": b"a", tmp_path / "b": b"b", tmp_path / "main": b"m"})
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "b").read_bytes() == b"mine"
    (tmp_path / "b").write_bytes(b"b")
    write_together({tmp_path / "a": b"a", tmp_path / "b": b"b", tmp_path / "main": b"m"})
    assert names(tmp_path) == ["a", "b", "main"]


def test_leftovers_go_by_their_exact_names_and_other_holders_folders_are_left(
    tmp_path: Path,
) -> None:
    gone = [
        ".verdict.json.12.part",
        "trials/.abc.json.7.part",
        ".adapter.12.part/adapter_model.safetensors",
        "checkpoints/checkpoint-14/.tmpA1b2C3",
    ]
    kept = [
        "run.lock",
        ".verdict.json.part",
        "verdict.json.12.part",
        ".tmpA1b2C3",
        "checkpoints/checkpoint-14/.tmpA1b2C3D4",
        "checkpoints/checkpoint-14/optimizer.pt",
        "checkpoints/checkpoint-mine/.tmpA1b2C3",
        "final/run.lock",
        "final/.verdict.json.12.part",
        "final/checkpoints/checkpoint-1/.tmpA1b2C3",
    ]
    for name in (*gone, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    left = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == sorted(kept)
    assert not (tmp_path / ".adapter.12.part").exists()


@pytest.mark.parametrize("kind", [*WRITERS, ".csv.gz"])
def test_the_same_rows_give_the_same_bytes_at_any_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / f"x{kind}", [{"text": "2025-01-01T00:00:00Z", "label": "a"}]
    first = table_bytes(path, ["text", "label"], rows)
    later = datetime(2040, 1, 1, tzinfo=UTC)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr("datetime.datetime", Later)
    monkeypatch.setattr("time.time", later.timestamp)
    assert table_bytes(path, ["text", "label"], rows) == first
    monkeypatch.undo()
    path.write_bytes(first)
    assert read_table(path).rows[0].values == rows[0]


def test_files_are_put_on_disk_without_being_opened_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    for name in ("weights", "inside/more"):
        (tmp_path / name).write_bytes(b"1")
        (tmp_path / name).chmod(0o444)
    modes = []
    monkeypatch.setattr("os.fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL)))
    on_disk(tmp_path)
    assert [mode & os.O_ACCMODE for mode in modes] == [os.O_RDONLY] * 2


def test_a_link_that_leads_nowhere_is_left_as_it_is(tmp_path: Path) -> None:
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(KilotuneError, match="left as it is"):
        check_writable(link)
    assert link.is_symlink()
