"""What a killed process left is gone on with; what is damaged is one error that names the line."""

from pathlib import Path

import pytest

from kilotune.errors import KilotuneError
from kilotune.runs.journal import Journal, remove_served

ONE, TWO = {"file:2": {"prediction": "ä"}}, {"file:3": {"prediction": "b"}}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "out.csv", "abc", "prediction")
    made.append(ONE)
    made.append(TWO)
    return made


def test_results_come_back_and_a_torn_end_counts_for_nothing(journal: Journal) -> None:
    assert journal.read() == {**ONE, **TWO}
    raw = journal.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(raw) if byte == ord("\n")]
    for cut in range(len(raw)):
        journal.path.write_bytes(raw[:cut])
        whole = sum(end <= cut for end in ends)
        assert journal.read() == ({}, {}, ONE, {**ONE, **TWO})[whole]
        journal.append(TWO)
        assert journal.read() == {**(ONE if whole > 1 else {}), **TWO}


@pytest.mark.parametrize("line", [1, 2, 3])
@pytest.mark.parametrize(
    "damage",
    [b"{", b"[]", b"12", b'"x"', b"\xff\xfe{}", b"null", b'{"file:2": 1}', b'{"file:2": {"p": 1}}',
     b"[" * 100_000, b"", b"\x00" * 50],
)  # fmt: skip
def test_a_damaged_line_is_named(journal: Journal, line: int, damage: bytes) -> None:
    lines = journal.path.read_bytes().split(b"\n")
    lines[line - 1] = damage
    journal.path.write_bytes(b"\n".join(lines))
    before = journal.path.read_bytes()
    with pytest.raises(KilotuneError, match="are damaged") as caught:
        journal.read()
    assert caught.value.where == f"{journal.path}:{line}"
    assert "delete it" in caught.value.fix
    assert journal.path.read_bytes() == before


def test_another_job_is_refused(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(KilotuneError, match="the results of another job"):
        Journal(tmp_path / "out.csv", "xyz", "prediction").read()


def test_only_a_journal_that_has_served_is_removed(journal: Journal, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    remove_served(out)
    assert journal.path.exists()  # nothing is written yet
    out.write_text("of another origin")
    remove_served(out)
    assert journal.path.exists()  # its answers are not in that file
    journal.complete()
    assert journal.read() == {**ONE, **TWO}
    remove_served(out)
    assert not journal.path.exists()
    journal.path.write_text('{"mine": 1}\n{"complete": true}\n')
    remove_served(out)
    assert journal.path.exists()  # no journal


def test_a_full_disk_names_the_journal(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        journal.append(TWO)
    assert caught.value.filename == str(journal.path)
