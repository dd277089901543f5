"""`kilotune runs` and `kilotune compare` on run folders written by hand."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from tests.support.records import write_run

runner = CliRunner()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "first", ["good", "bad"] * 10)
    write_run(tmp_path / "second", ["good"] * 20, "tune.rank=4", started="2026-01-02T09:00:00")
    return tmp_path


def test_runs_are_listed_and_filtered(runs: Path) -> None:
    listed = runner.invoke(app, ["runs", str(runs), "--show", "tune.rank"])
    assert listed.exit_code == 0, listed.output
    cells = [line.split() for line in listed.stdout.splitlines() if "st" in line or "nd" in line]
    assert cells[0] == ["name", "state", "verdict", "val.accuracy", "val.macro_f1", "seconds",
        "tune.rank"]  # fmt: skip
    assert cells[1] == ["first", "finished", "healthy", "0.5", "0.3333", "10", "8"]
    where = ["--where", "val.macro_f1 > 0.8 and tune.rank = 4", "--json"]
    document = json.loads(runner.invoke(app, ["runs", str(runs), *where]).stdout)
    assert [run["name"] for run in document["runs"]] == ["second"]
    refused = runner.invoke(app, ["runs", str(runs), "--where", "tune.rank 4"])
    assert refused.exit_code == 2
    assert "is wanted before '4'" in refused.stderr


def test_a_comparison_says_what_to_choose_by_and_what_not(runs: Path) -> None:
    both = [str(runs / "first"), str(runs / "second")]
    said = runner.invoke(app, ["compare", *both]).stdout
    assert "tune.rank: 8 → 4" in said
    chosen, test = said.split("Held-out test: not to choose by")
    assert "A 0.500, B 1.000 on 20 examples" in chosen
    assert "better data:3: text of data:3 → good; A: bad; B: good" in chosen
    assert "B instead of A? unavailable: cannot be decided: 1 seed(s)" in chosen
    assert "instead" not in test
    document = json.loads(runner.invoke(app, ["compare", *both, "--json"]).stdout)
    assert document["status"] == 0
    assert document["validation"]["right"] == {
        "wins": 10, "losses": 0, "ties": 10, "p_value": pytest.approx(2 / 2**10),
    }  # fmt: skip
    assert len(document["validation"]["changed"]) == 10


def test_resume_goes_on_with_an_ablation_as_with_a_run(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone_on(folder: Path, *given: object, **budget: object) -> None:
        raise KilotuneError(f"went on with {folder.name}, {budget}")

    monkeypatch.setattr("kilotune.workflows.ablate.resume", gone_on)
    (runs / "first" / "folds.json").write_text("[]")
    said = runner.invoke(app, ["resume", str(runs / "first")]).stderr
    assert (
        "went on with first, {'minutes': None, 'trials': None, 'moved': (), 'trust_code': False}"
        in said
    )
    assert "the run is finished" in runner.invoke(app, ["resume", str(runs / "second")]).stderr
