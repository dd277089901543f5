"""A stranger's recipe or run folder is data: its code is run where that is said, and only there."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import kilotune
from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.runs import record
from kilotune.runs.documents import DataDocument
from kilotune.workflows.resuming import kept
from tests.support.tiny import write_tiny_model

runner = CliRunner()

# Leaves a file behind when it is imported.
MODULE = """
from pathlib import Path
Path(__file__).with_suffix(".imported").touch()
def score(prediction, reference):
    return 1.0
def same(example, rng):
    return []
"""
TRAINING = ("run", "plan", "ablate", "augment")
ASKING = ("predict", "select", "chat", "export")


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def invoke(*arguments: str | Path, **more: str):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [str(argument) for argument in arguments], **more)  # type: ignore[arg-type]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the module `strangers` leaves its mark; the module can be imported."""
    (tmp_path / "strangers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "strangers", raising=False)
    return tmp_path / "strangers.imported"


@pytest.fixture
def recipe(tmp_path: Path, labelled: Path, tiny_model: Path) -> Path:
    """A recipe that names a metric and an operation of the module `strangers`."""
    tree = {
        "data": {"train": str(labelled)},
        "model": {"name": str(tiny_model)},
        "judge": {"metric": "strangers:score"},
        "augment": {"operations": ["strangers:same"]},
    }
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("command", TRAINING)
def test_a_recipes_code_is_refused_before_anything_is_done(
    command: str, recipe: Path, imported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = {"plan": (), "augment": ("-o", out / "more.csv")}.get(command, ("--out", out))
    result = invoke(command, recipe, *places)
    assert result.exit_code == 2
    assert "names Python code, which would be run: " in result.stderr
    assert "judge.metric=strangers:score" in result.stderr
    assert "repeat with --trust-code" in result.stderr
    assert not imported.exists()
    assert not out.exists()


def test_a_recipes_code_is_run_and_named_where_it_is_trusted(recipe: Path, imported: Path) -> None:
    result = invoke("plan", recipe, "--trust-code", "--json")
    assert result.exit_code == 0, result.stderr
    said = "running Python code named by the recipe: augment.operations=strangers:same, judge."
    assert said in result.stderr
    assert imported.exists()


def test_code_given_on_the_command_line_needs_no_option(
    labelled: Path, tiny_model: Path, imported: Path
) -> None:
    given = ("--set", "judge.metric=strangers:score")
    result = invoke("plan", labelled, "--model", tiny_model, *given, "--json")
    assert result.exit_code == 0, result.stderr
    assert imported.exists()


def test_check_reads_a_recipe_and_runs_nothing_of_it(recipe: Path, imported: Path) -> None:
    result = invoke("check", recipe, "--json")
    assert json.loads(result.stdout)["task"] == "classify", result.output
    assert not imported.exists()


@pytest.fixture
def their_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run whose base model comes with code that leaves a mark when it is run."""
    base = write_tiny_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "code.Theirs"}}
    (base / "config.json").write_text(json.dumps(config))
    (base / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    tree = yaml.safe_load((run / "recipe.yaml").read_text())
    tree["model"] |= {"name": str(base), "trust_remote_code": True}
    (run / "recipe.yaml").write_text(yaml.safe_dump(tree))
    identity = json.loads((run / "identity.json").read_text())
    identity["settings"]["model.trust_remote_code"] = True
    (run / "identity.json").write_text(json.dumps(identity))
    return run


@pytest.mark.parametrize("command", [*ASKING, "decode", "resume", "render"])
def test_a_run_of_a_model_with_code_is_refused(
    command: str, their_run: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    arguments = {
        "predict": (their_run, labelled, "-o", out),
        "select": (their_run, labelled, "-o", out),
        "export": (their_run, "--to", "merged", "-o", out),
        "render": (their_run / "recipe.yaml",),
    }.get(command, (their_run,))
    result = invoke(command, *arguments)
    assert result.exit_code == 2
    assert "would be run: model.trust_remote_code. Read that code" in result.stderr
    assert not out.exists()
    assert not (tmp_path / "ran").exists()
    trusted = invoke(command, *arguments, "--trust-code")  # the code is no model, but it was run
    assert "Read that code" not in trusted.stderr
    if command != "resume":  # which says that the run is finished
        said = "running Python code named by the recipe: model.trust_remote_code"
        assert said in trusted.stderr


@pytest.mark.parametrize("command", ["ablate", "resume"])
def test_the_code_of_an_ablation_that_goes_on_is_named(
    command: str, recipe: Path, imported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ablation"
    folder.mkdir()
    shutil.copy(recipe, folder / "recipe.yaml")
    (folder / "folds.json").write_text("[]")
    refused = invoke(command, folder)
    assert refused.exit_code == 2
    assert "would be run: augment.operations=strangers:same, judge.metric=" in refused.stderr
    assert not imported.exists()
    said = "running Python code named by the recipe: augment.operations=strangers:same, judge."
    assert invoke(command, folder, "--trust-code").stderr.count(said) == 1


def test_a_run_that_began_with_code_is_told_to_go_on_with_it(
    tmp_path: Path, labelled: Path, tiny_model: Path, imported: Path
) -> None:
    """What `--set` gave stands in the run's own recipe, which is a file."""
    for name, code in (("own", "judge.metric=strangers:score"), ("plain", "seed=1")):
        folder = record.RunFolder(tmp_path / name)
        folder.path.mkdir()
        settings = {"data": {"train": str(labelled)}}
        folder.write_recipe(load_recipe(settings=settings, overrides=[code]))
        again = f"kilotune resume {folder.path}{' --trust-code' * (name == 'own')}"
        heard = Heard()
        with pytest.raises(KeyboardInterrupt), kept(folder, heard):
            raise KeyboardInterrupt
        assert heard.said == [f"Stopped; go on with: {again}"]
        with pytest.raises(KilotuneError) as caught:
            folder.check_finished()
        assert caught.value.fix == f"Go on with it: {again}"
        with pytest.raises(KilotuneError) as caught:
            record.check_new(folder.path)
        assert caught.value.fix.endswith(f"or go on with it: {again}")
        with pytest.raises(KilotuneError) as caught:
            folder.read(DataDocument)
        assert caught.value.fix.endswith(
            again.replace("resume", "run").replace(str(folder.path), str(folder / record.RECIPE))
        )


def test_what_only_reads_a_run_reads_any(their_run: Path, tmp_path: Path) -> None:
    shutil.copytree(their_run, tmp_path / "same")
    for arguments in (
        ("report", their_run),
        ("compare", their_run, tmp_path / "same"),
        ("runs", tmp_path),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
    assert not (tmp_path / "ran").exists()


def test_resuming_from_python_refuses_code_too(their_run: Path) -> None:
    (their_run / "verdict.json").unlink()
    with pytest.raises(KilotuneError, match=r"in Python: trust_code=True"):
        kilotune.resume(their_run)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_without_the_setting_a_models_code_is_not_run(
    file: str, labelled: Path, tmp_path: Path
) -> None:
    """`auto_map` names Python files of the model's folder, for transformers to run."""
    model = write_tiny_model(tmp_path / "model")
    mark = tmp_path / "ran"
    (model / "code.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    classes = {"AutoConfig": "code.A", "AutoModelForCausalLM": "code.A"}
    tokenizer = {"AutoTokenizer": ["code.A", "code.A"]}
    content = json.loads((model / file).read_text())
    content["auto_map"] = classes if file == "config.json" else tokenizer
    (model / file).write_text(json.dumps(content))
    for command in (("render", labelled, "--model", model), ("plan", labelled, "--model", model)):
        result = invoke(*command)
        assert result.exit_code in (0, 1, 2), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
    assert not mark.exists()
