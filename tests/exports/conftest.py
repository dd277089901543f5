"""Finished runs of tiny random models, made once for all tests of their exports."""

from pathlib import Path

import pytest

import kilotune
from kilotune.exports import llama_converter
from kilotune.recipe.load import load_recipe
from tests.support.first_qwen import write_tiny_qwen
from tests.support.tiny import labelled_csv


def tuned(folder: Path, model: Path) -> Path:
    """The folder of a finished run of a few steps."""
    data = labelled_csv(folder / "films.csv", 120)
    settings = {"data": {"train": str(data)}, "model": {"name": str(model), "precision": "float32"}}
    overrides = [
        "tune.epochs=8",
        "tune.learning_rate=1e-2",
        "tune.stopping.metric=loss",
        "tune.stopping.patience=8",
        "judge.bootstrap_samples=200",
    ]
    recipe = load_recipe(settings=settings, overrides=overrides)
    return kilotune.run(recipe, folder / "Tiny Films").folder


@pytest.fixture(scope="session")
def qwen_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first-generation Qwen."""
    return write_tiny_qwen(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def qwen_run(qwen_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a first-generation Qwen."""
    return tuned(tmp_path_factory.mktemp("qwen"), qwen_base)


@pytest.fixture(scope="session")
def llama_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on a Llama."""
    return tuned(tmp_path_factory.mktemp("llama"), tiny_model)


# Writes down how it is called, in place of llama.cpp's converter.
STAND_IN = """
import json, sys
from pathlib import Path

def after(name):
    return sys.argv[sys.argv.index(name) + 1]

metadata = json.loads(Path(after("--metadata")).read_text())
there = sorted(path.name for path in Path(sys.argv[1]).iterdir())
Path(after("--outfile")).write_text(json.dumps([after("--outtype"), metadata, there]))
"""


@pytest.fixture
def converter_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of llama.cpp's converter, which only writes down how it is called."""
    script = tmp_path / "llama.cpp" / llama_converter.SCRIPT
    script.parent.mkdir()
    script.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    monkeypatch.setattr(llama_converter, "find_spec", lambda _: object())
    return script
