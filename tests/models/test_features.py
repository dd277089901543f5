from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.generation.decoding import inputs_of
from kilotune.generation.prefix import NONE
from kilotune.generation.prompts import Prompts
from kilotune.models.features import _owners, obstacle, open_eyes
from kilotune.models.freeze import Tunable
from kilotune.models.pretrained import takes_argument
from kilotune.models.vision import Eyes, Vision
from kilotune.training.batches import collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import pack
from tests.models.test_vision import LORA, model_of, rendered, vision_of
from tests.support.tiny_vision import KINDS, seen_images, write_kind


@pytest.fixture
def images(tmp_path: Path) -> Any:
    return seen_images(tmp_path)


def count_openings(vision: Vision) -> list[int]:
    """How many images the processor was asked for, call by call."""
    calls: list[int] = []
    process = vision._process
    vision._process = lambda images: calls.append(len(images)) or process(images)  # type: ignore
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_remembered_features_give_the_same_loss_and_open_each_image_once(
    kind: str, tmp_path: Path, images: Any
) -> None:
    folder = write_kind(kind, tmp_path / kind)
    vision, tunable = vision_of(folder), Tunable(model_of(folder), LORA, 0)
    model = tunable.model
    renderings = rendered(folder, vision, images)
    loss = LabelledLoss(model)
    with torch.no_grad():
        plain = loss.sum(model, collate(renderings, 0, eyes=Eyes(vision, model))).item()
        eyes = open_eyes(vision, model, 10**9)
        calls = count_openings(vision)
        for _ in range(2):
            found = loss.sum(model, collate(renderings, 0, eyes=eyes)).item()
            assert found == pytest.approx(plain, rel=1e-5)
        assert calls == [1, 1, 1]  # three images, four times shown
        again = loss.sum(model, collate(renderings, 0, eyes=Eyes(vision, model))).item()
    assert again == pytest.approx(plain, rel=1e-6)
    assert "pixel_values" in pack(renderings, eyes=eyes).images


@pytest.mark.parametrize("kind", KINDS)
def test_generation_that_remembers_features_predicts_what_the_plain_model_does(
    kind: str, tmp_path: Path, images: Any
) -> None:
    """Positions behind an image are counted by its grid, be it shown as pixels or by number."""
    folder = write_kind(kind, tmp_path / kind)
    vision, model = vision_of(folder), model_of(folder)
    Tunable(model, LORA, 0)
    renderings = [one for one in rendered(folder, vision, images) if one.images]
    assert len(renderings) > 1
    eyes = open_eyes(vision, model, 10**9)
    for rendering in renderings:
        asked = Prompts([rendering.token_ids], [rendering.images], eyes)
        ids = torch.tensor([rendering.token_ids])
        shown = {**vision.pixels(rendering.images), "input_ids": ids}
        if takes_argument(model, "mm_token_type_ids"):
            shown["mm_token_type_ids"] = (ids == vision.token_id).long()
        with torch.no_grad():
            plain = model(**shown).logits
            found = model(**inputs_of(model, asked, 0, NONE)).logits
        assert (found - plain).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_generation_asked_for_first_serve_training(
    kind: str, tmp_path: Path, images: Any
) -> None:
    folder = write_kind(kind, tmp_path / kind)
    vision, tunable = vision_of(folder), Tunable(model_of(folder), LORA, 0)
    eyes = open_eyes(vision, tunable.model, 10**9)
    batch = collate(rendered(folder, vision, images), 0, eyes=eyes)
    loss = LabelledLoss(tunable.model)
    with torch.inference_mode():
        expected = loss.sum(tunable.model, batch).item()
    found = loss.sum(tunable.model, batch)
    found.backward()
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert any(p.grad is not None and p.grad.norm() > 0 for _, p in tunable.trained())


def test_beyond_its_limit_nothing_is_kept(tmp_path: Path, images: Any) -> None:
    folder = write_kind("qwen2_vl", tmp_path / "model")
    vision, model = vision_of(folder), model_of(folder)
    Tunable(model, LORA, 0)
    renderings = rendered(folder, vision, images)
    eyes = open_eyes(vision, model, 1)
    calls = count_openings(vision)
    with torch.no_grad():
        for _ in range(2):
            LabelledLoss(model).sum(model, collate(renderings[:1], 0, eyes=eyes))
    assert calls == [1, 1]


def test_another_session_of_the_model_remembers_for_itself_alone(tmp_path: Path) -> None:
    folder = write_kind("qwen2_vl", tmp_path / "model")
    vision, model = vision_of(folder), model_of(folder)
    Tunable(model, LORA, 0)
    owner = _owners(model)[-1]
    plain = owner.get_image_features
    for _ in range(3):
        open_eyes(vision, model, 10**9)
        assert owner.get_image_features.looked == plain


def test_a_tower_that_is_trained_or_drops_is_looked_through_each_time(tmp_path: Path) -> None:
    folder = write_kind("qwen2_vl", tmp_path / "model")
    with_vision = LORA.model_copy(update={"parts": ("language", "vision")})
    assert "is trained" in obstacle(Tunable(model_of(folder), with_vision, 0).model)
    model = Tunable(model_of(folder), LORA, 0).model
    assert obstacle(model) == ""
    model.get_base_model().model.visual.extra = torch.nn.Dropout(0.1)
    assert "dropout" in obstacle(model)
