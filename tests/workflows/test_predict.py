"""Predicting can be stopped: the same call goes on, and the file is the same as in one go."""

import csv
import os
from pathlib import Path

import pytest
from openpyxl import load_workbook

import kilotune.workflows.predict
from kilotune.data.files.claims import claimed
from kilotune.errors import KilotuneError
from kilotune.generation.answer import Prompting
from kilotune.runs.documents import DataDocument
from kilotune.runs.record import RunFolder
from kilotune.runs.schema_version import Document
from kilotune.workflows.predict import predict
from kilotune.workflows.select import select


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples were asked each time; three at once."""
    sizes: list[int] = []
    answers = Prompting.answers

    def counted(self, model, examples, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(examples))
        return answers(self, model, examples, *rest)

    monkeypatch.setattr(Prompting, "answers", counted)
    monkeypatch.setattr(kilotune.workflows.predict, "CHUNK", 3)
    return sizes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.csv"
    path.write_text("text\n" + "".join(f"film {'x' * i} was great\n" for i in range(8)))
    return path


def stop_after(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    counted, calls = Prompting.answers, []

    def stopping(self, *rest):  # type: ignore[no-untyped-def]
        if len(calls) == times:
            raise KeyboardInterrupt
        calls.append(1)
        return counted(self, *rest)

    monkeypatch.setattr(Prompting, "answers", stopping)


def test_a_stopped_prediction_goes_on_to_the_same_file(
    tiny_run: Path, tmp_path: Path, file: Path, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    predict(tiny_run, file, whole)
    assert chunks == [3, 3, 2]
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            predict(tiny_run, file, parts)
    kept = tmp_path / "parts.csv.part"
    assert len(kept.read_text().splitlines()) == 3
    assert not parts.exists()
    with kept.open("a") as half:
        half.write('{"file:2": {"predic')  # killed in the middle of a line
    chunks.clear()
    predict(tiny_run, file, parts)
    assert chunks == [2]
    assert parts.read_bytes() == whole.read_bytes()
    assert not kept.exists()


def test_what_another_job_kept_is_neither_used_nor_overwritten(
    tiny_run: Path, tmp_path: Path, file: Path, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            predict(tiny_run, file, tmp_path / "out.csv")
    before = (tmp_path / "out.csv.part").read_bytes()
    file.write_text(file.read_text() + "one more film\n")
    with pytest.raises(KilotuneError, match=r"out\.csv\.part: it holds the results of another"):
        predict(tiny_run, file, tmp_path / "out.csv")
    assert (tmp_path / "out.csv.part").read_bytes() == before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_refused_before_it_answers_and_leaves_nothing(
    tiny_run: Path, tmp_path: Path, file: Path, chunks: list[int]
) -> None:
    out = tmp_path / "out.csv"
    with claimed(out):
        before = names(tmp_path)
        with pytest.raises(
            KilotuneError, match=r"out\.csv: locked: another kilotune process is writing to it"
        ):
            predict(tiny_run, file, out)
        with pytest.raises(
            KilotuneError, match=r"out\.csv: locked: another kilotune process is writing to it"
        ):
            select(tiny_run, file, 3, out)
        assert names(tmp_path) == before
    assert chunks == []


def test_killed_after_the_last_rename_the_answers_kept_go(
    tiny_run: Path, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(kilotune.workflows.predict.Journal, "remove", lambda self: None)
        predict(tiny_run, file, out)
    (tmp_path / ".out.csv.kilotune.lock").touch()
    (tmp_path / ".out.csv.1.part").touch()
    assert (tmp_path / "out.csv.part").exists()
    whole = out.read_bytes()
    with pytest.raises(KilotuneError, match="the file exists and is left as it is"):
        predict(tiny_run, file, out)
    assert names(tmp_path) == ["new.csv", "out.csv"]
    assert out.read_bytes() == whole


def test_a_full_disk_names_the_answers_kept_and_the_same_call_goes_on(
    tiny_run: Path, tmp_path: Path, file: Path, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, fsync, calls = tmp_path / "out.csv", os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            predict(tiny_run, file, out)
    assert caught.value.filename == str(tmp_path / "out.csv.part")
    assert names(tmp_path) == ["new.csv", "out.csv.part"]
    predict(tiny_run, file, out)
    assert names(tmp_path) == ["new.csv", "out.csv"]


def test_generated_formulas_are_named_and_written_as_they_are(
    tiny_run: Path, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = RunFolder.read

    def of_free_text(folder: RunFolder, kind: type[Document]) -> Document:
        free = {"task": "generate", "labels": ()} if kind is DataDocument else {}
        return read(folder, kind).model_copy(update=free)

    said = {f"file:{line}": {"prediction": "fine"} for line in range(2, 10)}
    said |= {"file:3": {"prediction": "=1+1"}, "file:5": {"prediction": "-5"}}
    monkeypatch.setattr(RunFolder, "read", of_free_text)
    monkeypatch.setattr(kilotune.workflows.predict, "_all_answers", lambda *_: said)
    found = predict(tiny_run, file, tmp_path / "out.csv").findings
    assert [(f.code, f.severity, f.rows) for f in found] == [("formula", "note", ("file:3",))]
    with (tmp_path / "out.csv").open(newline="") as out:
        written = [row["prediction"] for row in csv.DictReader(out)]
    assert written == [answer["prediction"] for answer in said.values()]
    assert predict(tiny_run, file, tmp_path / "out.xlsx").findings == ()
    sheet = load_workbook(tmp_path / "out.xlsx").active
    assert sheet is not None
    assert (sheet["B3"].value, sheet["B3"].data_type) == ("=1+1", "s")
