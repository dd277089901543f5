"""What commands write to is one process's at a time, and no file of the user's."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.files.claims import claimed
from tests.support.made import sentences


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    """All files there and below, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / "films.csv"
    rows = [f"{line},{('good', 'bad')[i % 4 == 0]}" for i, line in enumerate(sentences(60))]
    path.write_text("text,label\n" + "\n".join([*rows, rows[0]]) + "\n")
    return path


def augment(films: Path, out: Path) -> list[str | Path]:
    return ["augment", films, "--op", "swap", "-o", out / "more.csv"]


def fix(films: Path, out: Path) -> list[str | Path]:
    return ["check", films, "--fix", out / "fixed.jsonl"]


def convert(films: Path, out: Path) -> list[str | Path]:
    return ["convert", films, out / "films.jsonl.gz"]


def test_what_is_beside_is_not_taken_for_a_killed_commands(films: Path, tmp_path: Path) -> None:
    (tmp_path / "more.test.csv").write_text("mine")
    result = invoke(*augment(films, tmp_path))
    assert result.exit_code == 2
    assert "more.test.csv: the file exists and is left as it is" in result.stderr
    # Nor is it overwritten where a command was killed before.
    (tmp_path / ".more.csv.kilotune.lock").touch()
    result = invoke(*augment(films, tmp_path))
    assert result.exit_code == 2
    assert "more.test.csv: the file exists and is left as it is" in result.stderr
    assert (tmp_path / "more.test.csv").read_text() == "mine"
    assert not (tmp_path / "more.csv").exists()
    assert not (tmp_path / "more.validation.csv").exists()


def test_the_same_output_at_the_same_time_is_refused_at_once(films: Path, tmp_path: Path) -> None:
    commands = [augment(films, tmp_path), fix(films, tmp_path), convert(films, tmp_path)]
    for arguments in commands:
        out = Path(arguments[-1])
        with claimed(out):
            before = contents(tmp_path)
            result = invoke(*arguments, "--json")
            assert result.exit_code == 2
            what = json.loads(result.stdout)["error"]["what"]
            assert what == "locked: another kilotune process is writing to it"
            assert contents(tmp_path) == before
        assert not out.exists()
