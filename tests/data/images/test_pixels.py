import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from kilotune.data.example import Image
from kilotune.data.images.pixels import digest, open_picture
from kilotune.errors import KilotuneError


def reopened(picture: Pillow.Image, kind: str = "PNG", **settings: object) -> np.ndarray:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    opened = open_picture(Image("", data=file.getvalue()))
    assert opened.mode == "RGB"
    return np.asarray(opened)


def test_what_is_transparent_is_white_and_half_of_it_half() -> None:
    picture = Pillow.new("RGBA", (3, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    picture.putpixel((2, 0), (0, 0, 0, 128))
    assert reopened(picture)[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127]]


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    picture = Pillow.new("P", (2, 1))
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.putpixel((1, 0), 1)
    assert reopened(picture, transparency=0)[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_sixteen_bits_of_grey_keep_their_upper_eight() -> None:
    grey = np.array([[0, 32768, 65535]], dtype=np.uint16)
    assert reopened(Pillow.fromarray(grey))[0, :, 0].tolist() == [0, 128, 255]


def test_grey_fractions_and_print_colours_become_rgb() -> None:
    fractions = Pillow.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    assert reopened(fractions, "TIFF")[0, :, 2].tolist() == [0, 127, 255]
    assert reopened(Pillow.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF")[0, 0, 0] == 255


def test_a_camera_held_on_its_side_is_put_upright() -> None:
    picture = Pillow.new("RGB", (2, 1), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert reopened(picture, exif=exif)[:, 0, 0].tolist() == [255, 0]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("nothing")
    with pytest.raises(KilotuneError, match="cannot be read") as caught:
        open_picture(Image("no.png", str(tmp_path)))
    assert caught.value.where == "no.png"


def test_a_digest_is_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.png").write_bytes(b"one")
    a, b = Image("a.png", str(tmp_path)), Image("b.png", str(tmp_path))
    assert digest(a) == digest(b) == digest(Image("", data=b"one")) != digest(Image("", data=b"2"))
