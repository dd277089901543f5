"""examples/vision from its first command to its last, shortened."""

from pathlib import Path

import pytest

from examples.vision import digits
from kilotune.exports import export
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.render import render
from kilotune.workflows.run import run
from tests.support.records import written

RECIPES = Path(digits.__file__).parent


@pytest.mark.slow
def test_the_example_runs_from_images_to_a_merged_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digits.main(Path("digits"), 160)
    for name, recipe, model in (("reads", "read", "model"), ("odd", "odd", "reads/model")):
        overrides = [
            f"model.name=./digits/{model}",
            f"data.train={tmp_path}/digits/{recipe}.jsonl",
            "tune.epochs=1",
            "judge.base_check=say",
        ]
        loaded = load_recipe(RECIPES / f"{recipe}.yaml", overrides=overrides)
        assert len(render(loaded).rendered.renderings) == 160
        done = run(loaded, Path("digits") / name)
        assert len(RunFolder(done.folder).read_predictions()) == 32
    proof = written(done.folder, "freeze_proof.json")
    assert sum(".visual." in tensor for tensor in proof["frozen"]) > 20
    merged = export(done.folder, "merged", Path("digits/odd-model"))
    names = {path.name for path in merged.iterdir()}
    assert names >= {"model.safetensors", "processor_config.json", "README.md"}
    assert "AutoModelForImageTextToText" in (merged / "README.md").read_text()


def test_the_recipes_of_the_example_are_those_that_its_files_fit() -> None:
    for name in ("read", "odd"):
        recipe = load_recipe(RECIPES / f"{name}.yaml")
        digits_folder = RECIPES.parents[1] / "digits"
        assert recipe.data.train.resolve() == digits_folder / f"{name}.jsonl"
        assert Path(recipe.model.name).resolve().is_relative_to(digits_folder)
        assert recipe.tune.stopping.metric == "accuracy"
