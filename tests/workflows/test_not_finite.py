"""Runs that end in figures that are no numbers: judged, reported, and gone on with like others."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.data.files.writers import write_table
from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import NOT_FINITE
from kilotune.recipe.load import load_recipe
from kilotune.reports.build import build_report
from kilotune.runs.record import RunFolder
from kilotune.workflows.run import Run
from tests.support.records import written
from tests.support.tiny import labelled_csv

# A rate at which full fine-tuning ends in NaN within an epoch.
TO_PIECES = ("tune.method=full", "tune.learning_rate=1e4")


def run_of(data: Path, model: Path, out: Path, *overrides: str) -> Run:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    few = ("model.precision=float32", "judge.bootstrap_samples=50", "decoding.max_new_tokens=8")
    return kilotune.run(load_recipe(settings=settings, overrides=[*few, *overrides]), out)


def body(report: Path) -> str:
    return report.read_text(encoding="utf-8").partition("<body>")[2]


def nulls_without_reason(tree: Any, path: str = "") -> list[str]:
    """Where a figure (what has an interval) is none and does not say why."""
    if isinstance(tree, list):
        return [
            found
            for i, item in enumerate(tree)
            for found in nulls_without_reason(item, f"{path}.{i}")
        ]
    if not isinstance(tree, dict):
        return []
    bare = (
        {"value", "low", "high"} <= tree.keys() and None in tree.values() and "reason" not in tree
    )
    return [path] * bare + [
        found for key, item in tree.items() for found in nulls_without_reason(item, f"{path}.{key}")
    ]


@pytest.fixture(scope="module")
def broken(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose weights ended in NaN."""
    folder = tmp_path_factory.mktemp("broken")
    return run_of(labelled_csv(folder / "films.csv", 80), tiny_model, folder / "run", *TO_PIECES)


def test_a_run_that_ends_in_nan_has_its_verdict_and_a_page_that_says_it(broken: Run) -> None:
    assert broken.verdict.name == "unstable"
    page = body(broken.report)
    assert "unstable: the training loss went from 5.44 to nan" in page
    why = "the model&#39;s label probabilities are not finite in 16 of 16 examples"
    assert (
        f'expected calibration error <span class="quiet" title="{why}">unavailable</span>' in page
    )
    assert "likeliest label <span" in page


def test_no_figure_on_record_is_none_without_a_reason(broken: Run) -> None:
    judged = written(broken.folder, "judgement.json")
    assert nulls_without_reason(judged) == []
    assert judged["test"][-1]["calibration"]["bins"] == []
    assert nulls_without_reason({"a": [{"value": None, "low": None, "high": None}]}) == [".a.0"]


def test_report_runs_and_compare_work_on_a_run_that_ended_in_nan(
    broken: Run, tiny_run: Path
) -> None:
    def ask(*arguments: object) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert json.loads(ask("report", broken.folder, "--json"))["report"] == str(broken.report)
    assert "unstable" in ask("runs", broken.folder)
    found = json.loads(ask("compare", tiny_run, broken.folder, "--json"))
    assert found["curves"][1][-1]["validation"]["loss"] is None
    assert " nan " in ask("compare", broken.folder, tiny_run).partition("Curves")[2]


def test_export_of_weights_that_are_nan_is_done_or_one_clear_error(
    broken: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ["export", str(broken.folder), "--to", "merged", "-o", str(out)]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code in (0, 2), result.output
    if result.exit_code:
        assert "kilotune: " in result.stderr
        assert not out.exists()
    else:
        assert "unstable" in (out / "README.md").read_text(encoding="utf-8")


def test_runs_of_before_reasons_were_kept_have_a_page_too(broken: Run, tmp_path: Path) -> None:
    folder = RunFolder(shutil.copytree(broken.folder, tmp_path / "run"))
    judged = written(folder, "judgement.json")
    bare = {"value": None, "low": None, "high": None}
    judged["test"][-1]["calibration"] |= {
        "ece": bare,
        "bins": [{"low": 0.9, "high": 1.0, "examples": 16, "confidence": None, "accuracy": 0.5}],
    }
    (folder / "judgement.json").write_text(json.dumps(judged))
    assert f'title="{NOT_FINITE}">unavailable</span> over ten bins' in body(build_report(folder))


ROWS: dict[str, list[dict[str, Any]]] = {
    "generate": [
        {"prompt": f"film {i} was {w}", "completion": f"it was {w} {i % 7}"}
        for i, w in zip(range(60), ("great", "awful") * 30, strict=True)
    ],
    "extract": [
        {"prompt": f"film {i} was {w}", "completion": json.dumps({"film": i, "was": w})}
        for i, w in zip(range(60), ("great", "awful") * 30, strict=True)
    ],
    "chat": [
        {
            "messages": [
                {"role": "user", "content": f"film {i} was {w}"},
                {"role": "assistant", "content": f"was it {w}?"},
                {"role": "user", "content": f"yes, {w}"},
                {"role": "assistant", "content": f"so {w} {i % 7}"},
            ]
        }
        for i, w in zip(range(60), ("great", "awful") * 30, strict=True)
    ],
}


@pytest.mark.parametrize("task", sorted(ROWS))
def test_other_tasks_end_in_a_verdict_and_a_page_too(
    task: str, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    write_table(data, list(ROWS[task][0]), ROWS[task])
    run = run_of(data, tiny_model, tmp_path / "run", *TO_PIECES, f"data.task={task}")
    assert run.verdict.name == "unstable"
    assert "unstable: " in body(run.report)
    assert nulls_without_reason(written(run.folder, "judgement.json")) == []


@pytest.mark.parametrize(
    "override",
    ["tune.weight_decay=1000", "decoding.temperature=0.7", "tune.learning_rate=1e6"],
)
def test_other_ways_into_nan_end_in_a_page_too(
    override: str, tiny_model: Path, labelled: Path, tmp_path: Path
) -> None:
    run = run_of(labelled, tiny_model, tmp_path / "run", *TO_PIECES, override)
    assert f"{run.verdict.name}: " in body(run.report)
    assert nulls_without_reason(written(run.folder, "judgement.json")) == []


def test_a_base_model_without_finite_logits_that_is_tuned_all_the_same_has_its_page(
    tiny_model: Path, labelled: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    # Finite by themselves, and what comes of them is not.
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], 3e38)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KilotuneError, match="its logits are not finite"):
        run_of(labelled, model, tmp_path / "stopped")
    run = run_of(labelled, model, tmp_path / "run", "judge.base_check=say")
    assert run.verdict.name == "unstable"
    assert "unstable: " in body(run.report)
