"""Forms that a file of a checkpoint may be found in after a power cut or a bad disk."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    """Sixteen bytes in the middle, each the other way round: same size, other content."""
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 16] = bytes(byte ^ 0xFF for byte in raw[middle : middle + 16])
    path.write_bytes(raw)


def of_another_form(path: Path) -> None:
    """What can be read, and is something else."""
    if path.suffix == ".safetensors":
        path.write_bytes(save({"other": torch.zeros(2)}))
    elif path.suffix in (".pt", ".pth", ".bin"):
        torch.save([1, 2], buffer := io.BytesIO())
        path.write_bytes(buffer.getvalue())
    else:
        path.write_text("[1]\n", encoding="utf-8")


FORMS: dict[str, Callable[[Path], None]] = {
    form.__name__: form for form in (removed, emptied, cut, flipped, of_another_form)
}
