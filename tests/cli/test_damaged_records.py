"""Every record of a run, damaged in every way, met by every command that reads runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.runs import record

Damage = Callable[[bytes], bytes | None]


def retyped(*path: str | int) -> Damage:
    """The field at `path` is of a type that it never has."""

    def damage(raw: bytes) -> bytes:
        tree: Any = json.loads(raw)
        place = tree
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {"other": 1}
        return json.dumps(tree).encode()

    return damage


def numbered(raw: bytes) -> bytes:
    """The texts in a Parquet column are numbers."""
    table = pq.read_table(pa.BufferReader(raw))
    column = table.column_names.index("tuned_output")
    table = table.set_column(column, "tuned_output", pa.array(range(len(table))))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


RETYPED: dict[str, Damage] = {
    record.RECIPE: lambda raw: raw.replace(b"seed: 0", b"seed: zero"),
    record.DATA: retyped("split", "train"),
    record.ENVIRONMENT: retyped("seconds", "tune"),
    record.FINDINGS: lambda raw: b'{"schema_version": 2, "findings": [{"code": 1}]}',
    record.METRICS: lambda raw: raw.replace(b'"step": 2,', b'"step": "2",'),
    record.JUDGEMENT: retyped("test", 3, "figures", "accuracy", "value"),
    record.VERDICT: retyped("remarks"),
    record.PROOF: retyped("moved"),
    record.PREDICTIONS: numbered,
    record.VALIDATION: numbered,
}
DAMAGES: dict[str, Damage] = {
    "missing": lambda raw: None,
    "empty": lambda raw: b"",
    "cut": lambda raw: raw[: len(raw) // 2],
    "list": lambda raw: b"[]",
    "null": lambda raw: b"null",
    "object": lambda raw: b"{}",
}
# What is no damage: no findings, the beginning of a log; a cut YAML is mostly YAML (the run's
# identity tells it from the whole one where that is on record).
ALLOWED = {(record.FINDINGS, "list"), (record.METRICS, "cut"), (record.RECIPE, "cut")}
PAGE = set(RETYPED) - {record.VALIDATION}
COMPARED = {record.RECIPE, record.DATA, record.ENVIRONMENT, record.METRICS, record.PREDICTIONS,
            record.VALIDATION}  # fmt: skip
READS = {
    "report": PAGE,
    "export": PAGE,
    "compare": COMPARED,
    "predict": {record.RECIPE, record.DATA},
}


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run and one to damage."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("whole", "damaged"):
        shutil.copytree(tiny_run, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    return folder


def ask(runs: Path, command: str) -> Result:
    run, out = str(runs / "damaged"), runs / "out"
    shutil.rmtree(out, ignore_errors=True)
    arguments = {
        "report": ["report", run],
        "export": ["export", run, "--to", "adapter", "-o", str(out)],
        "compare": ["compare", str(runs / "whole"), run],
        "predict": ["predict", run, str(runs / "new.csv"), "-o", str(runs / "answered.csv")],
        "runs": ["runs", str(runs), "--json"],
    }
    (runs / "new.csv").write_text("text\nfilm\n", encoding="utf-8")
    (runs / "answered.csv").unlink(missing_ok=True)
    return CliRunner().invoke(app, arguments[command])


def states(runs: Path) -> dict[str, str]:
    result = ask(runs, "runs")
    assert result.exit_code == 0, result.output
    return {run["name"]: run["state"] for run in json.loads(result.stdout)["runs"]}


@pytest.mark.parametrize("name", sorted(RETYPED))
@pytest.mark.parametrize("damage", [*DAMAGES, "retyped"])
def test_a_damaged_record_is_one_line_that_names_it(runs: Path, name: str, damage: str) -> None:
    path = runs / "damaged" / name
    whole = path.read_bytes()
    changed = {**DAMAGES, "retyped": RETYPED[name]}[damage](whole)
    assert changed != whole
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    try:
        for command in READS:
            if name in READS[command] or (name, damage) == (record.VERDICT, "missing"):
                check(ask(runs, command), name, damage)
        seen = states(runs)
    finally:
        path.write_bytes(whole)
    assert seen["whole"] == "finished"
    listed = {record.RECIPE, record.DATA, record.ENVIRONMENT, record.JUDGEMENT, record.VERDICT}
    if name in listed and (name, damage) not in ALLOWED and damage != "missing":
        assert seen["damaged"] == "unreadable"
    assert "damaged" in seen


def check(result: Result, name: str, damage: str) -> None:
    assert isinstance(result.exception, SystemExit | None), result.exception
    if (name, damage) in ALLOWED:
        assert result.exit_code in (0, 2)
        return
    assert result.exit_code == 2, result.output
    said = "not finished" if (name, damage) == (record.VERDICT, "missing") else name
    assert said in result.stderr or (name == record.RECIPE and "not a run folder" in result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", sorted(READS))
def test_records_that_a_command_does_not_need_do_not_stop_it(runs: Path, command: str) -> None:
    kept = {}
    for name in set(RETYPED) - READS[command] - {record.VERDICT}:
        path = runs / "damaged" / name
        kept[path] = path.read_bytes()
        path.write_bytes(b"{")
    try:
        result = ask(runs, command)
    finally:
        for path, whole in kept.items():
            path.write_bytes(whole)
    assert result.exit_code == 0, result.output


def test_what_judging_made_is_made_again_by_the_way_that_is_said(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    figures = json.loads((run / record.JUDGEMENT).read_bytes())["test"]
    (run / record.JUDGEMENT).write_bytes(b"")
    said = CliRunner().invoke(app, ["report", str(run)]).stderr
    assert f"delete it and verdict.json to have both recreated: kilotune resume {run}" in said
    (run / record.VERDICT).unlink()
    result = CliRunner().invoke(app, ["resume", str(run)])
    assert result.exit_code == 0, result.output
    assert json.loads((run / record.JUDGEMENT).read_bytes())["test"] == figures
