"""GGUF files: dequantised once into a folder of safetensors, which everything else then loads."""

import hashlib
import tempfile
from pathlib import Path

from kilotune.data.packages import cache_folder, made_once
from kilotune.errors import KilotuneError

CHECKPOINT = "Give the folder of the checkpoint that it was made of: model.name=FOLDER"


def is_gguf(name: str) -> bool:
    """Whether `name` is that of a GGUF file."""
    return name.lower().endswith(".gguf")


def gguf_folder(name: str) -> Path:
    """The folder that the GGUF file `name` was dequantised into, made on first use.

    Another file of that name, or a changed one, has another folder. Raises KilotuneError for a
    file that is not there or cannot be read.
    """
    file = Path(name).expanduser().resolve()
    if not file.is_file():
        raise KilotuneError("no such GGUF file", where=name, fix="Check the path")
    facts = file.stat()
    key = f"{file} {facts.st_size} {facts.st_mtime_ns}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    target = cache_folder() / "models" / "gguf" / f"{file.stem}-{digest}"
    return made_once(target, lambda folder: dequantise(file, folder))


def dequantise(file: Path, folder: Path) -> None:
    """Write model, tokenizer and generation settings of a GGUF file into `folder`, in float32.

    Takes as much memory as the float32 weights. Raises KilotuneError for what transformers cannot
    make of it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kilotune.models.integrity import lacking

    with tempfile.TemporaryDirectory(dir=folder) as alone:
        # Nothing that lies beside the file may be read for it.
        (Path(alone) / file.name).symlink_to(file)
        try:
            source, info = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # the reader's own, for every way a file can be broken
            raise _refusal("no model that transformers can build", file, error) from error
        if said := lacking(info):
            raise KilotuneError(said, where=str(file), fix=CHECKPOINT)
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name)
        except Exception as error:  # as above
            raise _refusal("no tokenizer that transformers can build", file, error) from error
    # The loaded model keeps a quantization_config and refuses to be saved; a clean one does not.
    settings = source.config.to_dict()
    for key in ("quantization_config", "dtype", "_model_name_or_path"):
        settings.pop(key, None)
    with torch.device("meta"):
        clean = AutoModelForCausalLM.from_config(
            type(source.config)(**settings), dtype=torch.float32
        )
    clean.load_state_dict(source.state_dict(), assign=True)
    clean.tie_weights()
    clean.generation_config = source.generation_config
    clean.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _refusal(what: str, file: Path, error: Exception) -> KilotuneError:
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return KilotuneError(
        f"the file holds {what} ({said})",
        where=str(file),
        fix=CHECKPOINT,
    )
