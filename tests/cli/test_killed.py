"""Killed at any of its file operations, a command can be given again, to the same bytes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from tests.killing import killed
from tests.made import sentences


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


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """A Parquet file with images in it, one row twice."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rows = []
    for number in range(4):
        raw = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(raw, "PNG")
        rows.append({"text": f"film {number}", "label": "ab"[number % 2], "image": raw.getvalue()})
    path = tmp_path / "films.parquet"
    pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), path)
    return path


def augment(films: Path, out: Path) -> list[str | Path]:
    return ["augment", films, "--op", "swap", "-o", out / "more.csv"]


def fix(films: Path, out: Path) -> list[str | Path]:
    return ["check", films, "--fix", out / "fixed.jsonl"]


def convert(films: Path, out: Path) -> list[str | Path]:
    return ["convert", films, out / "films.jsonl.gz"]


@pytest.mark.parametrize(
    ("command", "source", "files", "moments"),
    [
        (augment, "films", ["more.csv", "more.test.csv", "more.validation.csv"], 6),
        (fix, "films", ["fixed.jsonl", "fixed.jsonl.changes.jsonl"], 4),
        (fix, "pictured", ["fixed.jsonl", "fixed.jsonl.changes.jsonl"], 12),
        (convert, "films", ["films.jsonl.gz"], 2),
    ],
)
def test_a_killed_command_given_again_writes_the_same_bytes_and_leaves_nothing_else(
    command,  # type: ignore[no-untyped-def]
    source: str,
    files: list[str],
    moments: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    file = request.getfixturevalue(source)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert invoke(*command(file, whole)).exit_code in (0, 1)
    expected = contents(whole)
    assert [name for name in expected if "images" not in name] == files
    for at in range(1, 200):
        out = tmp_path / f"killed-{at}"
        out.mkdir()
        if not killed(at, *command(file, out)):
            break
        if (out / files[0]).exists():  # it had come to its end
            assert {**contents(out), **expected} == contents(out)
            again = invoke(*command(file, out))
            assert again.exit_code == 2
            assert "the file exists and is left as it is" in again.stderr
        else:
            again = invoke(*command(file, out))
            assert again.exit_code in (0, 1), again.stderr
        assert contents(out) == expected, at
    assert at > moments


def test_killed_twice_in_a_row_is_gone_on_with_too(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    seen = []
    for at in range(1, 200):
        if not killed(at, *augment(films, out)):
            break
        seen.append((out / "more.validation.csv").exists())
        if (out / "more.csv").exists():
            invoke(*augment(films, out))
            break
    assert seen[0] is False
    assert any(seen)  # one part there, by an earlier process, and not yet the others
    assert sorted(contents(out)) == ["more.csv", "more.test.csv", "more.validation.csv"]


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
    from kilotune.data.claims import claimed

    commands = [augment(films, tmp_path), fix(films, tmp_path), convert(films, tmp_path)]
    for arguments in commands:
        out = Path(arguments[-1])
        with claimed(out):
            before = contents(tmp_path)
            result = invoke(*arguments, "--json")
            assert result.exit_code == 2
            what = json.loads(result.stdout)["error"]["what"]
            assert what == "another process is writing it"
            assert contents(tmp_path) == before
        assert not out.exists()
