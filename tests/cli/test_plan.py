"""`kilotune plan` as a user meets it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kilotune.workflows.plan
from kilotune.cli.main import app
from kilotune.planning.speed import Speed

CONFIGS = Path(__file__).parents[1] / "support" / "configs"
runner = CliRunner()


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", lambda *_: Speed(2e11, 1e10))
    monkeypatch.setattr(kilotune.workflows.plan, "available_bytes", lambda: 10_000_000_000)


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, ["plan", *(str(argument) for argument in arguments)])


def test_a_plan_for_people_fits_80_columns_and_says_what_is_estimated(labelled: Path) -> None:
    settings = ("--set", "tune.layers=top:2", "--set", "model.precision=bfloat16")
    result = invoke(labelled, "--model", CONFIGS / "qwen2-vl-7b.json", *settings)
    assert result.exit_code == 0, result.output
    tables = [line for line in result.stdout.splitlines() if "  " in line]
    assert max(map(len, tables)) <= 80
    assert "8,291,375,616 parameters, 675,759,104 of them vision" in result.stdout
    assert "Trained: 1,441,792 (0.02%) in 2 layers, from layer 26 up" in result.stdout
    assert "estimated: no tokenizer there" in result.stdout
    assert "memory and time are estimates" in result.stdout
    ends = [line.split()[-1] for line in result.stdout.splitlines() if line.strip()]
    assert [end for end in ends if end in ("yes", "no")] == ["no", "no", "no", "yes"]


def test_a_plan_as_json_holds_every_figure(labelled: Path, tiny_model: Path) -> None:
    result = invoke(labelled, "--model", tiny_model, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["speed"] == {"products": 2e11, "elements": 1e10}
    assert document["work"]["counted"] is True
    assert [way["name"] for way in document["ways"]] == ["padded", "shared"]
    for way in document["ways"]:
        assert sum(way["memory"].values()) > 1e9
        assert way["fits"]
        assert way["training_seconds"] == pytest.approx(document["steps"] * way["step_seconds"])
    assert [fit["memory"] for fit in document["accelerators"]] == [24e9, 48e9, 80e9]


def test_a_recipe_is_planned_as_it_would_run(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name: {tiny_model}}}\ndata: {{train: {labelled}}}\ntune: {{epochs: 1, rank: 2}}"
    )
    document = json.loads(invoke(recipe, "--json").stdout)
    # 26 training examples in batches of 8; rank 2 is a quarter of the preset's.
    assert document["steps"] == 4
    whole = json.loads(invoke(labelled, "--model", tiny_model, "--json").stdout)
    assert document["trained"]["parameters"] * 4 == whole["trained"]["parameters"]


def test_what_cannot_run_cannot_be_planned(labelled: Path, tmp_path: Path) -> None:
    result = invoke(labelled, "--model", tmp_path)
    assert result.exit_code == 2
    assert "config.json" in result.stderr
    result = invoke(labelled, "--model", CONFIGS / "qwen-7b.json", "--set", "tune.layers=top:40")
    assert result.exit_code == 2
    assert "32 layers" in result.stderr


@pytest.mark.parametrize("command", ["run", "ablate", "plan"])
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("tune.rank=33", "tune.rank=33: no linear layer of the model is wider than 32, and"),
        ("decoding.max_new_tokens=2048", "has 2,048 positions for prompt and answer. Give fewer"),
    ],
)
def test_what_a_model_is_too_small_for_is_said_before_a_folder_is_made(
    command: str, setting: str, words: str, labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    where = () if command == "plan" else ("--out", str(out))
    given = ["--model", str(tiny_model), "--set", setting, *where]
    result = runner.invoke(app, [command, str(labelled), *given])
    assert (result.exit_code, words in result.stderr) == (2, True), result.output
    assert not out.exists()
    fitting = ["--set", "tune.rank=32", "--set", "decoding.max_new_tokens=1500"]
    result = runner.invoke(app, ["plan", str(labelled), "--model", str(tiny_model), *fitting])
    assert result.exit_code == 0, result.output
