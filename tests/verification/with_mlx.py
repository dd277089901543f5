"""Merged models in mlx-lm itself, which runs on a processor under Linux.

Not collected by itself: `make test-mlx` makes an environment with it and runs this.
"""

import json
import shutil
from pathlib import Path

import mlx_lm  # noqa: F401 (what is tested is not here without)

from kilotune.exports import export
from kilotune.workflows.verify import verify


def test_a_merged_model_answers_there_as_judged_and_another_template_is_found(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    out = export(run, "merged", tmp_path / "out")
    found = verify(out, run, program="mlx")
    assert found.program.startswith("mlx-lm ")
    assert (found.prompts, found.equal, found.apart, found.faults) == (16, 16, (), ())
    template = out / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "bot"))
    assert len(verify(out, run, program="mlx", examples=4).apart) == 4
    assert json.loads((out / "config.json").read_text())["rope_theta"] == 10000
