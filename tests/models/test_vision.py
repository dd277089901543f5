from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_sample_images

from kilotune.data.example import Example, Image, Message, Origin
from kilotune.errors import KilotuneError
from kilotune.generation.decoding import generate, generation_config
from kilotune.generation.prompts import Prompts
from kilotune.generation.score import LabelSet, score_labels
from kilotune.models.freeze import Tunable
from kilotune.models.lower import first_trained_layer
from kilotune.models.pretrained import decoder_layers
from kilotune.models.source import source_at
from kilotune.models.vision import Eyes, Vision, load_vision, part_of
from kilotune.progress import Silent
from kilotune.recipe.schema import FullSettings, LoraSettings, ModelSettings
from kilotune.rendering.label_mask import Rendering, render
from kilotune.rendering.refusals import RenderError
from kilotune.session.templates import load_template
from kilotune.training.agreement import agree
from kilotune.training.batches import collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import pack
from tests.support.families import perturb
from tests.support.tiny_vision import KINDS, seen_images, write_kind

LORA = LoraSettings(learning_rate=1e-3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of every kind that sees."""
    home = tmp_path_factory.mktemp("seeing")
    return {kind: write_kind(kind, home / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Image, ...]:
    return seen_images(tmp_path_factory.mktemp("images"))


def vision_of(folder: Path, **settings: Any) -> Vision:
    found = load_vision(source_at(folder, ModelSettings(name=str(folder), **settings)), needed=True)
    assert found is not None
    return found


def model_of(folder: Path) -> Any:
    return source_at(folder, ModelSettings(name=str(folder))).model(torch.float32)


def example(row: int, answer: str, *parts: str | Image) -> Example:
    messages = (Message("user", parts), Message("assistant", answer))
    return Example(f"data:{row}", messages, Origin("data", row))


def rendered(folder: Path, vision: Vision, images: tuple[Image, ...]) -> list[Rendering]:
    """One image; two, of which one is the same; another of the same size; none."""
    template = load_template(source_at(folder, ModelSettings(name=str(folder))), vision)
    small, wide, other = images
    told = "Look at the picture and say what you see. "
    return [
        render(template, each)
        for each in (
            example(1, "dark", told, small, "What?"),
            example(2, "both", told, small, " and ", wide, "Which?"),
            example(3, "grey", told, other, "What?"),
            example(4, "nothing", told, "What?"),
        )
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_gets_the_tokens_of_the_processor_and_none_is_trained(
    kind: str, folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision = vision_of(folders[kind])
    template = load_template(
        source_at(folders[kind], ModelSettings(name=str(folders[kind]))), vision
    )
    asked = example(1, "yes", "Same? ", images[0], " or ", images[1])
    rendering = render(template, asked)
    own = template.text(asked.messages)
    plain = vision.processor(
        text=own, images=[template_picture(i) for i in images[:2]], add_special_tokens=False
    )["input_ids"][0]
    assert list(rendering.token_ids) == list(plain[: len(rendering.token_ids)])
    assert rendering.token_ids[: rendering.prompt_length] == tuple(
        template.prompt_ids(asked.prompt)
    )
    [(start, end)] = rendering.spans()
    said = vision.processor.tokenizer.decode(rendering.token_ids[start : end - 1])
    assert (start, said.strip()) == (rendering.prompt_length, "yes")
    assert vision.token_id not in rendering.token_ids[start:]
    assert rendering.images == images[:2]


def template_picture(image: Image) -> Any:
    from PIL import Image as Pillow

    return Pillow.open(image.path)


def plain_loss(model: Any, vision: Vision, rendering: Rendering) -> torch.Tensor:
    """Transformers' own loss of one example, as its documentation has it."""
    ids = torch.tensor([rendering.token_ids])
    trained = torch.tensor([rendering.label_mask])
    inputs = vision.pixels(rendering.images) if rendering.images else {}
    if rendering.images and hasattr(model.model, "get_rope_index"):
        inputs["mm_token_type_ids"] = (ids == vision.token_id).long()
    return model(input_ids=ids, labels=ids.where(trained, -100), **inputs).loss


@pytest.mark.parametrize("kind", KINDS)
def test_padded_and_packed_batches_give_the_loss_of_the_plain_model(
    kind: str, folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision, model = vision_of(folders[kind]), model_of(folders[kind])
    eyes, renderings = Eyes(vision, model), rendered(folders[kind], vision, images)
    with torch.no_grad():
        expected = sum(plain_loss(model, vision, r) * r.trained for r in renderings)
        batch = collate(renderings, 0, eyes=eyes)
        found = LabelledLoss(model).sum(model, batch)
    assert int(batch.labelled_count()) == sum(r.trained for r in renderings)
    assert found.item() == pytest.approx(float(expected), rel=1e-5)
    tunable = Tunable(model, LORA, 0)
    perturb(tunable)
    agreement = agree(tunable, renderings, 0, 200, eyes=Eyes(vision, tunable.model))
    assert agreement.packed, agreement.reason
    assert agreement.loss_error is not None
    assert max(agreement.loss_error, agreement.gradient_error or 0) < 1e-5


def test_a_pack_shares_an_image_only_with_its_like(
    folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision, model = vision_of(folders["qwen2_vl"]), model_of(folders["qwen2_vl"])
    first, both, other, _ = rendered(folders["qwen2_vl"], vision, images)
    eyes = Eyes(vision, model)
    patches = (56 // 14) ** 2
    assert len(pack([first, other], eyes=eyes).images["pixel_values"]) == 2 * patches
    assert len(pack([first, both], eyes=eyes).images["pixel_values"]) == patches + 2 * patches
    positions = pack([first, both], eyes=eyes).position_ids
    assert positions.shape[:2] == (3, 1)
    assert not torch.equal(positions[0], positions[2])  # columns of an image differ from its time


def test_hidden_states_take_the_place_of_images(
    folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision, model = vision_of(folders["qwen2_vl"]), model_of(folders["qwen2_vl"])
    renderings = rendered(folders["qwen2_vl"], vision, images)
    batch = collate(renderings, 0, lambda r: torch.zeros(len(r.token_ids), 32), Eyes(vision, model))
    assert batch.inputs().keys() == {"inputs_embeds", "attention_mask", "position_ids"}
    with_images = collate(renderings, 0, eyes=Eyes(vision, model))
    assert torch.equal(batch.position_ids, with_images.position_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_scores_in_a_batch_are_those_of_each_by_itself(
    kind: str, folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision, model = vision_of(folders[kind]), model_of(folders[kind])
    eyes, renderings = Eyes(vision, model), rendered(folders[kind], vision, images)
    prompts = [r.token_ids[: r.prompt_length] for r in renderings]
    seen = [r.images for r in renderings]
    tokenizer = vision.processor.tokenizer
    config = generation_config(
        _decoding(), answer_tokens=2, stop_ids=[tokenizer.eos_token_id], pad_id=0
    )

    def answers(rows: list[int]) -> list[str]:
        asked = Prompts([prompts[i] for i in rows], [seen[i] for i in rows], eyes)
        said = generate(model, tokenizer, asked, config, seed=0, progress=Silent())
        return [answer.text for answer in said]

    def scores(rows: list[int]) -> list[float]:
        asked = Prompts([prompts[i] for i in rows], [seen[i] for i in rows], eyes)
        found = score_labels(model, asked, LabelSet([[5, 6], [7]], pad_id=0), progress=Silent())
        return [value for each in found for value in each.log_likelihoods]

    every = list(range(len(prompts)))
    assert answers(every) == [answer for i in every for answer in answers([i])]
    apart = [value for i in every for value in scores([i])]
    assert scores(every) == pytest.approx(apart, rel=1e-4)
    first, *_, third, _ = apart[::2]
    assert first != third  # what is seen counts


def test_prompts_without_images_are_answered_alike_after_some_with_images(
    folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision, model = vision_of(folders["qwen2_vl"]), model_of(folders["qwen2_vl"])
    _, both, _, text = rendered(folders["qwen2_vl"], vision, images)
    tokenizer = vision.processor.tokenizer
    config = generation_config(
        _decoding(), answer_tokens=6, stop_ids=[tokenizer.eos_token_id], pad_id=0
    )
    prompt = list(text.token_ids[: text.prompt_length])
    alike = [prompt, [*prompt, 70], [*prompt, 80, 90]]  # they share a beginning

    def said(prompts: list[list[int]], shown: list[tuple[Image, ...]]) -> list[str]:
        asked = Prompts(prompts, shown, Eyes(vision, model))
        answers = generate(model, tokenizer, asked, config, seed=0, progress=Silent())
        return [answer.text for answer in answers]

    first = said(alike, [])
    looked = list(both.token_ids[: both.prompt_length])
    said([looked] * 3, [both.images] * 3)
    assert said(alike, []) == first
    said([looked], [both.images])
    assert said(alike, []) == first


def _decoding() -> Any:
    from kilotune.recipe.schema import DecodingSettings

    return DecodingSettings()


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_sit_in_the_parts_that_are_named_and_nowhere_else(
    kind: str, folders: dict[str, Path]
) -> None:
    def parts(*names: str) -> set[str]:
        tunable = Tunable(model_of(folders[kind]), LORA.model_copy(update={"parts": names}), 0)
        return {part_of(tunable.model)(name) for name, _ in tunable.trained()}

    for chosen in (("language",), ("language", "vision"), ("merger",)):
        assert parts(*chosen) == set(chosen)


def test_layers_are_counted_in_the_decoder_whose_tower_has_as_many(
    folders: dict[str, Path],
) -> None:
    for kind, folder in folders.items():
        model = model_of(folder)
        name, _ = decoder_layers(model)
        assert "vision" not in name, kind
        assert "visual" not in name, kind
        top = Tunable(model, LORA.model_copy(update={"layers": "top:1"}), 0)
        assert first_trained_layer(top.model) == 1, kind


def test_full_tuning_trains_every_weight_of_its_parts(folders: dict[str, Path]) -> None:
    settings = FullSettings(
        method="full", learning_rate=1e-3, parts=("language", "merger", "vision")
    )
    tunable = Tunable(model_of(folders["qwen2_vl"]), settings, 0)
    trained, total = tunable.parameter_counts()
    assert trained == total
    only = settings.model_copy(update={"parts": ("language",)})
    frozen = {name for name, _ in Tunable(model_of(folders["qwen2_vl"]), only, 0).frozen()}
    assert all("visual" in name or "inv_freq" in name for name in frozen)


def test_parts_of_a_model_of_texts_are_refused(tiny_model: Path) -> None:
    settings = LORA.model_copy(update={"parts": ("language", "vision")})
    with pytest.raises(KilotuneError, match="no part 'vision'"):
        Tunable(model_of(tiny_model), settings, 0)


def test_pixel_limits_change_the_number_of_tokens_or_are_refused(
    folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    wide = images[1]
    assert len(vision_of(folders["qwen2_vl"]).tokens(wide)) == 4 * 2
    smaller = vision_of(folders["qwen2_vl"], min_pixels=28 * 28, max_pixels=2 * 28 * 28)
    assert len(smaller.tokens(wide)) == 2
    larger = vision_of(folders["qwen2_vl"], min_pixels=16 * 28 * 28)
    assert len(larger.tokens(wide)) >= 16
    with pytest.raises(KilotuneError, match="same number of tokens"):
        vision_of(folders["llava"], max_pixels=100)


def test_photographs_are_scaled_into_the_limits_and_their_loss_is_the_plain_one(
    folders: dict[str, Path],
) -> None:
    """Two of 427 x 640 pixels that come with scikit-learn."""
    shown = tuple(
        Image(Path(name).name, str(Path(name).parent)) for name in load_sample_images().filenames
    )
    vision = vision_of(folders["qwen2_vl"], max_pixels=50 * 28 * 28)
    assert [len(vision.tokens(image)) for image in shown] == [5 * 8, 5 * 8]
    model = model_of(folders["qwen2_vl"])
    template = load_template(
        source_at(folders["qwen2_vl"], ModelSettings(name=str(folders["qwen2_vl"]))), vision
    )
    renderings = [render(template, example(i, "yes", image)) for i, image in enumerate(shown)]
    with torch.no_grad():
        expected = sum(plain_loss(model, vision, r) * r.trained for r in renderings)
        batch = collate(renderings, 0, eyes=Eyes(vision, model))
        assert LabelledLoss(model).sum(model, batch).item() == pytest.approx(
            float(expected), rel=1e-5
        )


def test_images_that_cannot_be_shown_name_themselves(
    folders: dict[str, Path], images: tuple[Image, ...], tmp_path: Path
) -> None:
    vision = vision_of(folders["qwen2_vl"])
    settings = ModelSettings(name=str(folders["qwen2_vl"]))
    template = load_template(source_at(settings.name, settings), vision)
    with pytest.raises(RenderError, match=r"gone\.png") as caught:
        render(template, example(1, "yes", Image("gone.png", str(tmp_path)), "What?"))
    assert caught.value.code == "image-unreadable"
    shown = Example(
        "data:2",
        (Message("user", "Draw."), Message("assistant", (images[0], "here"))),
        Origin("data", 2),
    )
    with pytest.raises(RenderError) as caught:
        render(template, shown)
    assert caught.value.code == "image-in-answer"


def test_a_spelt_out_placeholder_is_no_image(
    folders: dict[str, Path], images: tuple[Image, ...]
) -> None:
    vision = vision_of(folders["qwen2_vl"])
    settings = ModelSettings(name=str(folders["qwen2_vl"]))
    template = load_template(source_at(settings.name, settings), vision)
    rendering = render(template, example(1, "yes", "Is <|image_pad|> ", images[0], " one?"))
    assert rendering.token_ids.count(vision.token_id) == 4


def test_without_torchvision_or_a_processor_the_error_says_what_to_do(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    config = (folders["qwen2_vl"] / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    settings = ModelSettings(name=str(tmp_path))
    assert load_vision(source_at(tmp_path, settings), needed=False) is None
    with pytest.raises(KilotuneError, match="image processor") as caught:
        load_vision(source_at(tmp_path, settings), needed=True)
    assert "kilotune[vision]" in caught.value.fix


def test_a_package_that_a_processor_wants_is_named(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(KilotuneError, match="`num2words` is required") as caught:
        load_vision(source_at(folders["smolvlm"]), needed=True)
    assert "Install the package that it names" in caught.value.fix
