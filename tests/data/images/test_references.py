from pathlib import Path

import pytest

from kilotune.data.example import Image
from kilotune.data.images.copies import _moved
from kilotune.data.images.references import read_images


@pytest.mark.parametrize("scheme", ["", "file://", "FILE://", "File://"])
def test_a_file_address_is_a_path_in_whatever_letters(scheme: str, tmp_path: Path) -> None:
    assert read_images(f"{scheme}/a/FILE.png", str(tmp_path)) == [
        Image("/a/FILE.png", str(tmp_path))
    ]
    assert _moved(f"{scheme}a.png", {"a.png": "../a.png"}) == "../a.png"
