"""Exports in llama.cpp itself: equal prompts, equal answers, greedy decoding from the file.

Not collected by itself: `make test-llama-cpp` makes an environment with `xllamacpp`, fetches
llama.cpp's own converter, and runs this.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xllamacpp  # noqa: F401 (what is tested is not here without)
from gguf import GGUFReader
from safetensors import safe_open

import kilotune
from kilotune.data.samples import write_sample
from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.exports.llama_converter import convert, converter
from kilotune.recipe.load import load_recipe
from kilotune.workflows.verify import verify
from tests.support.assets import qwen_ranks
from tests.support.tiny_vision import even_or_odd, write_digits, write_real_vocabulary


@pytest.fixture(scope="module")
def run(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, tuned for a few steps."""
    folder = tmp_path_factory.mktemp("llama_cpp")
    train, test = write_sample("movie-reviews", folder)
    for file, count in ((train, 40), (test, 60)):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[: count + 1]), encoding="utf-8")
    settings = {
        "data": {"train": str(train), "test": str(test)},
        "model": {"name": str(smollm2), "precision": "float32"},
    }
    overrides = [
        "tune.epochs=2", "tune.layers=top:4", "judge.train_sample=4", "judge.forgetting=never"
    ]  # fmt: skip
    return kilotune.run(load_recipe(settings=settings, overrides=overrides), folder / "run").folder


@pytest.fixture(scope="module")
def instructions(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, "gguf-instructions", tmp_path_factory.mktemp("told") / "out")


def test_float32_by_the_exports_own_script_answers_as_judged_and_is_greedy(
    run: Path,
    instructions: Path,
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [instructions / "convert.sh"], check=True, capture_output=True,
        env={**os.environ, "PATH": path, "LLAMA_CPP": str(converter().parent)},
    )  # fmt: skip
    found = verify(instructions, run, program="llama.cpp")
    assert found.form == "GGUF F32"
    assert (found.prompts, found.apart, found.samples) == (60, (), False)
    assert found.faults == ()
    assert found.equal >= 59


def test_exported_files_of_16_and_8_bits_are_reported(run: Path, tmp_path: Path) -> None:
    out = export(run, "gguf", tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {
        "README.md", "kilotune.json", "run-F16.gguf", "run-Q8_0.gguf"
    }  # fmt: skip
    with pytest.raises(KilotuneError, match="several GGUF files there"):
        verify(out, run)
    for kind, most in (("F16", 280e6), ("Q8_0", 160e6)):
        found = verify(out / f"run-{kind}.gguf", run)
        assert (found.form, found.quantised, found.apart) == (f"GGUF {kind}", True, ())
        assert found.size < most
        assert found.faults == ()
        assert found.equal >= 55
    assert (out / "README.md").read_text().count("of 60 answers equal") == 2


def test_a_file_without_the_metadata_is_found_to_sample(run: Path, instructions: Path) -> None:
    out = instructions
    (out / "metadata.json").write_text("{}")
    convert(out / "model", out / "bare.gguf", "--outtype", "f16")
    found = verify(out / "bare.gguf", run, examples=2)
    assert [fault["phrase"] for fault in found.faults] == ["verify-samples"]


def test_what_turns_images_into_tokens_is_all_there(tmp_path: Path) -> None:
    model = write_real_vocabulary(tmp_path / "model", qwen_ranks(tmp_path), blocks=4)
    data = write_digits(tmp_path, range(40), "Is this digit even or odd?", even_or_odd)
    settings = {
        "data": {"train": str(data)},
        "model": {"name": str(model), "precision": "float32", "max_pixels": 3136},
        "tune": {"epochs": 1, "batch_size": 4},
        "judge": {"train_sample": 4, "bootstrap_samples": 50, "base_check": "say"},
    }
    made = kilotune.run(load_recipe(settings=settings), tmp_path / "run").folder
    out = export(made, "gguf", tmp_path / "out")
    with safe_open(model / "model.safetensors", "pt") as file:
        tower = [name for name in file.keys() if name.startswith("visual.")]  # noqa: SIM118
    found = len(GGUFReader(out / "mmproj-run.gguf").tensors)
    # The one that cuts patches out is split by frames, and some join others.
    assert found > len(tower) / 2 > 10
    assert len(GGUFReader(out / "run-F16.gguf").tensors) > 20
