"""`kilotune convert` and formats in the other commands, as a user meets them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.normalise import load_dataset

runner = CliRunner()


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def faq(tmp_path: Path) -> Path:
    path = tmp_path / "faq.jsonl"
    rows = [{"Bitte": f"q{i}", "Danke": f"{i} is the answer to it", "n": i} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


COLUMNS = ("--column", "prompt=Bitte", "--column", "completion=Danke")


def test_convert_says_what_it_read_and_what_stayed_behind(faq: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    result = invoke("convert", faq, out, *COLUMNS)
    assert result.exit_code == 0, result.output
    assert "detected: prompt/completion rows" in result.stderr
    assert "columns left behind: n" in result.stderr
    assert result.stdout == f"12 rows: {out}\n"
    assert load_dataset(out).format == "messages"


def test_convert_prints_one_document(faq: Path, tmp_path: Path) -> None:
    result = invoke("convert", faq, tmp_path / "o.csv", *COLUMNS, "--to", "alpaca", "--json")
    assert json.loads(result.stdout) == {
        "out": str(tmp_path / "o.csv"), "rows": 12, "from": "prompt-completion", "to": "alpaca",
        "left_behind": ["n"], "findings": [], "status": 0, "files": [str(faq)], "task": "generate",
        "examples": {"data": 12},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no column that looks like the text"),
        (("--column", "prompt"), "cannot read --column prompt"),
        (("--column", "prompt=Bitten"), "Did you mean 'Bitte'?"),
        (("--to", "xml", *COLUMNS), "no format 'xml'"),
        (("--format", "alpaca"), "the instruction or the output of Alpaca"),
    ],
)
def test_convert_fails_in_one_line_and_writes_nothing(
    arguments: tuple[str, ...], words: str, faq: Path, tmp_path: Path
) -> None:
    result = invoke("convert", faq, tmp_path / "out.jsonl", *arguments)
    assert result.exit_code == 2
    lines = [line for line in result.stderr.splitlines() if line.startswith("kilotune: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["faq.jsonl"]


def test_run_stops_on_rows_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": ["x"], "label": "a"}])))
    result = invoke("run", path)
    assert result.exit_code == 2
    assert "'text' that is a list (1): data:21" in result.stderr
