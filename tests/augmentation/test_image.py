import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from kilotune.augmentation.image import (
    CHANGES,
    Bounds,
    changed_picture,
    contact_sheet,
    image_operation,
    similarity,
    speaks_of_sides,
)
from kilotune.data.example import Example, Image
from kilotune.data.images.pixels import open_picture
from tests.support.made import pictured

BOUNDS = Bounds(0.3, 1.0, 0.5)


def scene(width: int = 96, height: int = 64) -> Pillow.Image:
    """A smooth picture with a bright disc on one side."""
    y, x = np.mgrid[:height, :width]
    sky = np.stack([x * 255 / width, y * 255 / height, np.full(x.shape, 128.0)], axis=-1)
    sky[(x - width / 4) ** 2 + (y - height / 2) ** 2 < height * 3] = (250, 230, 60)
    return Pillow.fromarray(sky.astype(np.uint8))


@pytest.fixture
def example() -> Example:
    file = io.BytesIO()
    scene().save(file, "PNG")
    return pictured(1, Image("", data=file.getvalue()), text="Which mood?")


@pytest.mark.parametrize("name", CHANGES)
def test_pictures_change_and_stay_like_what_they_were(name: str) -> None:
    before = scene()
    for seed in range(20):
        made = changed_picture(before, name, BOUNDS, random.Random(seed))
        assert made is not None
        assert made.size == before.size
        assert made.mode == "RGB"
        assert not np.array_equal(np.asarray(made), np.asarray(before))
        reference = ImageOps.mirror(before) if name == "flip" else before
        assert similarity(reference, made) >= BOUNDS.similarity


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "flip"])
def test_a_stronger_change_is_less_like_the_original(name: str) -> None:
    before = scene()
    weak, strong = (
        similarity(before, CHANGES[name](before, by, random.Random(0))) for by in (0.1, 1.0)
    )
    assert 1 >= weak > strong


def test_similarity_is_one_of_the_same_and_low_of_another() -> None:
    assert similarity(scene(), scene()) == pytest.approx(1.0)
    assert similarity(scene(), ImageOps.invert(scene())) < 0


def test_a_change_that_cannot_be_weak_enough_is_refused(example: Example) -> None:
    refused: Counter[str] = Counter()
    strict = Bounds(1.0, 1.0, 0.99999)
    assert image_operation("contrast", strict, refused)(example, random.Random(0)) == []
    assert refused == {"unlike the original": 1}


def test_the_text_and_the_answer_stay_and_the_seed_decides(example: Example) -> None:
    operation = image_operation("noise", BOUNDS, Counter())
    [made], [same], [other] = (operation(example, random.Random(seed)) for seed in (1, 1, 2))
    assert made == same != other
    assert [m.text for m in made.messages] == [m.text for m in example.messages]
    assert open_picture(made.images[0]).size == (96, 64)
    assert operation(pictured(1), random.Random(0)) == []


@pytest.mark.parametrize(
    ("text", "spoken"),
    [("What is on the left?", True), ("Read the sign", True), ("Is it 5?", True),
     ("左边是什么？", True), ("What mood is this?", False)],
)  # fmt: skip
def test_texts_that_a_mirror_would_make_wrong_are_known(text: str, spoken: bool) -> None:
    [question, _] = pictured(0, text=text).messages
    assert speaks_of_sides(Example("a", (question,), pictured(0).origin)) == spoken


def test_the_contact_sheet_has_a_cell_for_each(example: Example, tmp_path: Path) -> None:
    sheet = contact_sheet([example, pictured(2)], ["brightness", "flip"], BOUNDS, 0)
    assert sheet.size == (3 * 160, 178)
    cells = [np.asarray(sheet.crop((160 * i, 18, 160 * (i + 1), 178))) for i in range(3)]
    assert all(cell.std() > 10 for cell in cells)
    assert not np.array_equal(cells[0], cells[1])
