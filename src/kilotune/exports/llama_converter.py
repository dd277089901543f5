"""llama.cpp's own converter to GGUF files, which knows every architecture that llama.cpp does.

It is Python (MIT) and ships in the source package of a binding; `kilotune fetch llama.cpp` puts it
into the cache. It runs in a process of its own, and needs no network.
"""

import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

from kilotune.data.packages import Package, cache_folder, fetch, made_once
from kilotune.errors import KilotuneError

LLAMA_CPP = Package(
    name="llama-cpp-python",
    version="0.3.36",
    filename="llama_cpp_python-0.3.36.tar.gz",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    source=True,
)
NAME, SCRIPT = "llama.cpp", "convert_hf_to_gguf.py"
# What of llama.cpp is needed to convert.
PARTS = (SCRIPT, "LICENSE", "conversion", "gguf-py")
GET_IT = f"Run once: kilotune fetch {NAME}; or say where llama.cpp is: LLAMA_CPP=FOLDER"


def fetch_converter() -> Path:
    """The converter's folder in the cache, fetched unless it is there. Raises KilotuneError."""
    return made_once(_cached(), _unpack)


def converter() -> Path:
    """The converter of `$LLAMA_CPP`, else that of the cache. Raises KilotuneError without one.

    And where a package is missing that it needs.
    """
    own = os.environ.get("LLAMA_CPP")
    script = (Path(own) if own else _cached()) / SCRIPT
    if not script.is_file():
        raise KilotuneError("llama.cpp's converter is not there", where=str(script), fix=GET_IT)
    if find_spec("sentencepiece") is None:
        raise KilotuneError(
            "sentencepiece is not installed, which llama.cpp's converter needs",
            where=str(script),
            fix="pip install 'kilotune[llama-cpp]'",
        )
    return script


def convert(model: Path, out: Path, *arguments: str | Path) -> None:
    """Write the GGUF file `out` of the checkpoint `model`, with the converter's own `arguments`.

    Raises KilotuneError with its words where it cannot.
    """
    command = [sys.executable, converter(), model, "--outfile", out, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise KilotuneError(
            f"llama.cpp's converter cannot convert the model ({said[-1] if said else 'no word'})",
            where=str(command[1]),
            fix="Try a newer llama.cpp: LLAMA_CPP=FOLDER; or --to merged, for other programs",
        )


def _cached() -> Path:
    return cache_folder() / "converters" / f"{NAME}-{LLAMA_CPP.version}"


def _unpack(folder: Path) -> None:
    inside = f"{LLAMA_CPP.filename.removesuffix('.tar.gz')}/vendor/{NAME}/"
    with tarfile.open(fetch(LLAMA_CPP)) as archive:
        for member in archive:
            place = member.name.removeprefix(inside)
            if member.name.startswith(inside) and place.split("/")[0] in PARTS:
                member.name = place
                archive.extract(member, folder, filter="data")
