import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from kilotune.data.checks.image_quality import OVERSIZED, image_faults
from kilotune.data.example import Image
from tests.support.made import pictured


def saved(
    folder: Path, name: str, mode: str, size: tuple[int, int] = (8, 8), **how: object
) -> Image:
    Pillow.new(mode, size).save(folder / name, **how)
    return Image(name, str(folder))


def faults(*images: Image) -> dict[str, tuple[str, ...]]:
    rows = [pictured(row, image) for row, image in enumerate(images, 1)]
    return {finding.code: finding.rows for finding in image_faults(rows)}


def test_plain_pictures_are_left_alone(tmp_path: Path) -> None:
    opaque = Pillow.new("RGBA", (8, 8), (1, 2, 3, 255))
    opaque.save(tmp_path / "opaque.png")
    held = io.BytesIO()
    opaque.convert("RGB").save(held, "PNG")
    assert faults(
        saved(tmp_path, "a.jpg", "RGB"),
        saved(tmp_path, "b.png", "L"),
        saved(tmp_path, "c.gif", "P"),
        saved(tmp_path, "d.png", "1"),
        Image("opaque.png", str(tmp_path)),
        Image("", data=held.getvalue()),
    ) == {}  # fmt: skip


def test_missing_remote_and_corrupt_images_are_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path, "whole.png", "RGB", (64, 64))
    (tmp_path / "cut.png").write_bytes(whole.path.read_bytes()[:60])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    assert faults(
        whole,
        Image("none.png", str(tmp_path)),
        Image("https://example.org/a.png", str(tmp_path)),
        *(Image(name, str(tmp_path)) for name in ("cut.png", "text.png", "empty.png")),
        Image("", data=b"\x89PNG"),
        Image(".", str(tmp_path)),
    ) == {
        "missing-image": ("data:2", "data:8"),
        "remote-image": ("data:3",),
        "corrupt-image": ("data:4", "data:5", "data:6", "data:7"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "name"),
    [("CMYK", "a.jpg"), ("I;16", "b.png"), ("RGBA", "c.png"), ("LA", "d.png"), ("F", "e.tiff")],
)
def test_modes_that_change_when_loaded_are_warned_of(mode: str, name: str, tmp_path: Path) -> None:
    assert faults(saved(tmp_path, name, mode)) == {"image-mode": ("data:1",)}


def test_animations_are_warned_of(tmp_path: Path) -> None:
    frames = [Pillow.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert faults(Image("a.gif", str(tmp_path))) == {"image-mode": ("data:1",)}


def test_too_many_pixels_or_too_long_a_side(tmp_path: Path) -> None:
    side = int(OVERSIZED**0.5)
    assert faults(
        saved(tmp_path, "a.png", "1", (side, side)),
        saved(tmp_path, "b.png", "1", (side + 8, side + 8)),
        saved(tmp_path, "c.png", "L", (1, 201)),
        saved(tmp_path, "d.png", "1", (20_000, 20_000)),
    ) == {"oversized-image": ("data:2", "data:3", "data:4")}  # fmt: skip


def test_a_row_of_several_images_is_named_once_and_a_file_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = saved(tmp_path, "a.png", "RGBA")
    opened: list[object] = []
    real = Pillow.open

    def noted(source: Any, formats: Any) -> object:
        opened.append(source)
        return real(source, formats=formats)

    monkeypatch.setattr(Pillow, "open", noted)
    rows = [pictured(1, image, image), pictured(2, image)]
    (finding,) = image_faults(rows)
    assert finding.rows == ("data:1", "data:2")
    assert len(opened) == 1


@pytest.mark.parametrize("kind", ["eps", "pcx", "sgi"])
def test_only_the_stated_kinds_are_opened(kind: str, tmp_path: Path) -> None:
    Pillow.new("RGB", (8, 8)).save(tmp_path / f"a.{kind}")
    (finding,) = image_faults([pictured(1, Image(f"a.{kind}", str(tmp_path)))])
    assert finding.code == "corrupt-image"
    assert "none of PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM, ICO" in finding.message


def test_a_name_that_no_system_would_have_is_a_missing_image() -> None:
    (finding,) = image_faults([pictured(1, Image("x" * 5000))])
    assert finding.code == "missing-image"
    assert len(finding.message) < 200


def test_images_outside_the_data_files_folder_are_noted(tmp_path: Path) -> None:
    inner = tmp_path / "data"
    inner.mkdir()
    outside, inside = saved(tmp_path, "out.png", "RGB"), saved(inner, "in.png", "RGB")
    (inner / "link.png").symlink_to(outside.path)
    (tmp_path / "data-2").mkdir()
    beside = saved(tmp_path / "data-2", "a.png", "RGB")
    folder = str(inner)
    rows = [
        inside,
        Image(str(inside.path), folder),  # absolute, and there all the same
        Image("../data/in.png", folder),
        Image("../out.png", folder),
        Image(str(outside.path), folder),
        Image("link.png", folder),
        Image(str(beside.path), folder),
    ]
    assert faults(*rows) == {"image-outside": ("data:4", "data:5", "data:6", "data:7")}
