"""Exports in llama.cpp itself: equal prompts, equal answers, greedy decoding from the file.

Not collected by itself: `make test-llama-cpp` makes an environment with `xllamacpp` and runs this
with LLAMA_CPP, a folder with llama.cpp's own converter.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import xllamacpp  # noqa: F401 (what is tested is not here without)

import kilotune
from kilotune.data.samples import write_sample
from kilotune.exports import export
from kilotune.recipe.load import load_recipe
from kilotune.workflows.verify import verify

CONVERTER = Path(os.environ["LLAMA_CPP"]) / "convert_hf_to_gguf.py"


@pytest.fixture(scope="module")
def exported(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, tuned for a few steps, for llama.cpp."""
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
    run = kilotune.run(load_recipe(settings=settings, overrides=overrides), folder / "run").folder
    return export(run, "gguf-instructions", folder / "out")


def converted(out: Path, kind: str) -> Path:
    """The GGUF file that llama.cpp's converter makes of an export, as its convert.sh does."""
    file = out / f"{kind}.gguf"
    asked = ["model", "--outtype", kind, "--metadata", "metadata.json", "--outfile", file]
    subprocess.run([sys.executable, CONVERTER, *asked], cwd=out, check=True, capture_output=True)
    return file


def test_float32_answers_as_judged_and_the_file_itself_is_greedy(exported: Path) -> None:
    found = verify(converted(exported, "f32"))
    assert found.form == "GGUF F32"
    assert (found.prompts, found.apart, found.samples) == (60, (), False)
    assert found.faults == ()
    assert found.equal >= 59


def test_eight_bits_are_reported(exported: Path) -> None:
    found = verify(converted(exported, "q8_0"))
    assert (found.form, found.quantised, found.apart) == ("GGUF Q8_0", True, ())
    assert found.size < 160e6
    assert found.faults == ()
    assert found.equal >= 55


def test_a_file_without_the_metadata_is_found_to_sample(exported: Path) -> None:
    (exported / "metadata.json").write_text("{}")
    found = verify(converted(exported, "f16"), examples=2)
    assert found.form == "GGUF F16"
    assert [fault["phrase"] for fault in found.faults] == ["verify-samples"]
