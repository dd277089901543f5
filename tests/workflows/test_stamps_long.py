"""Real pictures, transparent and of odd sizes, all the way: see tests/support/stamps.py."""

from pathlib import Path

import pytest

from kilotune.data.column_plan import Reading
from kilotune.preparation.inspection import check
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.render import render
from kilotune.workflows.run import run
from tests.support import stamps
from tests.support.records import written
from tests.support.tiny_vision import write_kind

pytestmark = pytest.mark.long
MOST = 12544  # pixels: 16 tokens of Qwen2-VL


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stamps.unpack(tmp_path_factory.mktemp("stamps"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kind("qwen2_vl", tmp_path_factory.mktemp("model"))


def test_all_785_pictures_are_read_checked_and_rendered(folder: Path, model: Path) -> None:
    file = stamps.write_captions(folder)
    found = check([file], reading=Reading())
    assert found.examples == {"data": 785}
    assert found.task == "chat"
    assert not [finding for finding in found.findings if finding.severity == "error"]
    settings = {
        "data": {"train": str(file)},
        "model": {"name": str(model), "max_pixels": MOST},
    }
    seen = render(load_recipe(settings=settings))
    assert len(seen.rendered.renderings) == 785
    assert not [finding for finding in seen.findings if finding.severity == "error"]
    answers = [a for picture in stamps.pictures(folder) for a in stamps.captions(picture) if a]
    # A byte a token, and a token that ends each answer.
    assert seen.rendered.trained == sum(len(a.strip().encode()) + 1 for a in answers)
    image = seen.template.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    tokens = [r.token_ids.count(image) for r in seen.rendered.renderings]
    assert min(tokens) >= 1
    assert max(tokens) <= 16
    assert len(set(tokens)) > 8


def test_sixteen_kinds_of_pictures_are_tuned_and_judged(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    file = stamps.write_categories(folder, each=6)
    settings = {
        "data": {"train": str(file)},
        "model": {"name": str(model), "precision": "float32", "max_pixels": MOST},
        "tune": {"epochs": 4, "learning_rate": 5e-3},
        "judge": {"train_sample": 4, "bootstrap_samples": 50},
    }
    done = run(load_recipe(settings=settings), tmp_path / "run")
    judgement = written(done.folder, "judgement.json")
    assert judgement["tuning"]["agreement"]["path"] == "packed"
    assert judgement["tuning"]["agreement"]["gradient_error"] < 1e-4
    assert len(written(done.folder, "data.json")["labels"]) == 16
    assert len(RunFolder(done.folder).read_predictions()) >= 16
    losses = [line["loss"] for line in RunFolder(done.folder).read_metrics() if "loss" in line]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
