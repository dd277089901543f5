"""A finished run's weights, for other programs."""

import shutil
from collections.abc import Callable
from pathlib import Path

from peft import PeftModel
from transformers import GenerationConfig

from kilotune.errors import KilotuneError
from kilotune.experiments.record import RunFolder, check_new
from kilotune.models.export import ADAPTER, tuned_folder
from kilotune.models.load import compute_dtype, load_model, load_tokenizer, locate
from kilotune.models.merge import write_merged
from kilotune.models.qwen import GENERATION, first_generation
from kilotune.models.qwen_adapter import write_qwen_adapter
from kilotune.recipe.schema import ModelSettings

PROCESSOR_FILES = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"
)  # fmt: skip


def export(run: Path, to: str, out: Path) -> Path:
    """Write the tuned weights of the finished `run` into the new folder `out`, in the form `to`.

    Forms are those of FORMS. Returns `out`. Raises KilotuneError for another form, for a run that
    has no such form, and rather than overwrite anything.
    """
    if to not in FORMS:
        raise KilotuneError(f"no form '{to}'", where="--to", fix=f"Choose: {', '.join(FORMS)}")
    folder = RunFolder(run)
    settings = folder.read_recipe().model
    if not folder.finished:
        raise KilotuneError(
            "the run is not finished", where=str(run), fix=f"Go on with it: kilotune resume {run}"
        )
    check_new(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        FORMS[to](tuned_folder(run), settings, part)
        if out.exists():
            out.rmdir()  # empty, as was checked
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _adapter(tuned: Path, settings: ModelSettings, out: Path) -> None:
    """As it is, with tokenizer, template and decoding."""
    _check_adapter(tuned)
    shutil.copytree(tuned, out, dirs_exist_ok=True)


def _merged(tuned: Path, settings: ModelSettings, out: Path) -> None:
    """A plain checkpoint in the precision of the run."""
    if tuned.name != ADAPTER:
        shutil.copytree(tuned, out, dirs_exist_ok=True)  # it is whole already
        return
    base = load_model(locate(settings), settings, compute_dtype(settings.precision))
    write_merged(PeftModel.from_pretrained(base, tuned), out)
    load_tokenizer(str(tuned), settings).save_pretrained(out)
    GenerationConfig.from_pretrained(tuned).save_pretrained(out)
    for name in PROCESSOR_FILES:  # of a model that sees images
        if (tuned / name).exists():
            shutil.copy(tuned / name, out / name)


def _qwen_adapter(tuned: Path, settings: ModelSettings, out: Path) -> None:
    """For the code that came with a first-generation Qwen, whose tokenizer it keeps."""
    _check_adapter(tuned)
    source = locate(settings)
    if not first_generation(source):
        raise KilotuneError(
            "the model is no first-generation Qwen",
            where=settings.name,
            fix="Its adapter has the model's own names already: --to adapter",
        )
    write_qwen_adapter(tuned, source, out)
    for name in (GENERATION, "chat_template.jinja"):
        shutil.copy(tuned / name, out / name)


def _check_adapter(tuned: Path) -> None:
    if tuned.name != ADAPTER:
        raise KilotuneError(
            "the layers themselves were trained, and there is no adapter",
            where=str(tuned),
            fix="Export the whole model: --to merged",
        )


FORMS: dict[str, Callable[[Path, ModelSettings, Path], None]] = {
    "adapter": _adapter,
    "merged": _merged,
    "qwen-adapter": _qwen_adapter,
}
