"""The forms that a finished run's weights are written in."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kilotune.data.files.claims import claimed
from kilotune.data.files.writers import write_atomically, written_atomically
from kilotune.errors import KilotuneError
from kilotune.exports.card import model_card
from kilotune.exports.finished import Finished, open_finished
from kilotune.exports.llama_converter import convert, converter
from kilotune.exports.ollama import modelfile
from kilotune.exports.origin import read_origin, write_origin
from kilotune.exports.shell_scripts import (
    LARGEST_RANK,
    convert_script,
    create_script,
    serve_script,
)
from kilotune.models.hub import file_of
from kilotune.models.identity import PROCESSOR_FILES
from kilotune.models.interchange import add_older_settings
from kilotune.models.merge import write_merged
from kilotune.models.pretrained import compute_dtype
from kilotune.models.public import CARD, name_base
from kilotune.models.qwen import GENERATION
from kilotune.models.qwen_adapter import write_qwen_adapter
from kilotune.models.source import source_at
from kilotune.models.tuned_weights import tuned_generation, with_adapter
from kilotune.rendering.standalone import standalone
from kilotune.runs.record import RunFolder, check_new
from kilotune.session.loading import check_run
from kilotune.system.digests import sha256_of

TEMPLATE, METADATA = "chat_template.jinja", "metadata.json"
GGUF_TYPES = ("F16", "Q8_0")
SENTENCE_PIECE = ("tokenizer.model", "spiece.model")


def export(run: str | Path, to: str, out: str | Path, *, trust_code: bool = False) -> Path:
    """Write the tuned weights of the finished `run` into the new folder `out`, in the form `to`.

    Forms are those of FORMS. Returns `out`. Raises KilotuneError for another form, for a run that
    has no such form, for a model with code of its own unless `trust_code`, and rather than
    overwrite anything.
    """
    if to not in FORMS:
        raise KilotuneError(f"no form '{to}'", where="--to", fix=f"Choose: {', '.join(FORMS)}")
    finished, out = open_finished(Path(run), trust_code=trust_code), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with claimed(out, check=check_new), written_atomically(out) as part:
        check_run(finished.folder, finished.recipe, finished.source)
        part.mkdir()
        FORMS[to](finished, part)
        _write_card(finished, to, part, standalone=True)
        write_origin(finished, to, part)
    return out


def describe(folder: RunFolder, finished: Finished | None = None) -> None:
    """Write the card of a judged run's own weights beside them; `finished` is the run, if opened.

    They are a plain checkpoint or PEFT adapter as they are, and may be shared like an export.
    Raises KilotuneError where a record is damaged.
    """
    # Whoever made the run just now has said whether its code may run.
    finished = finished or Finished(folder, folder.read_recipe(trust_code=True))
    _write_card(finished, "adapter" if finished.has_adapter else "merged", finished.tuned)


def renew_card(finished: Finished, export: Path) -> None:
    """Write the card of an export anew, as its run's records are now; not one that was changed.

    `export` is the folder, or a file in it. One without a record of its run is left as it is.
    """
    folder, origin = export if export.is_dir() else export.parent, read_origin(export)
    card = folder / CARD
    if origin is None or not card.is_file() or sha256_of(card) != origin.card:
        return
    _write_card(finished, origin.form, folder, standalone=True)
    write_origin(finished, origin.form, folder)


def _write_card(finished: Finished, form: str, out: Path, *, standalone: bool = False) -> None:
    card = model_card(
        finished,
        form,
        sees=finished.source.sees_images,
        merged=not (out / "adapter_config.json").exists(),
        source=finished.source.place,
        standalone=standalone,
    )
    write_atomically(out / CARD, card)


def _adapter(finished: Finished, out: Path) -> None:
    """As it is, with tokenizer, template and decoding."""
    _check_adapter(finished)
    _copy_tuned(finished, out)
    _write_template(finished, out)
    _add_what_others_read(finished, out)
    name_base(out, finished.recipe.model.name)


def _merged(finished: Finished, out: Path) -> None:
    """A plain checkpoint in the precision of the run."""
    tuned, settings = finished.tuned, finished.recipe.model
    if not finished.has_adapter:
        _copy_tuned(finished, out)  # it is whole already
        _write_template(finished, out)
        _add_what_others_read(finished, out)
        return
    settings = settings.model_copy(update={"quantization": "none"})  # merged into whole weights
    base = replace(finished.source, settings=settings).model(compute_dtype(settings.precision))
    write_merged(with_adapter(base, tuned), out)
    source_at(tuned, settings).tokenizer().save_pretrained(out)
    tuned_generation(tuned).save_pretrained(out)
    _write_template(finished, out)
    for name in PROCESSOR_FILES:  # of a model that sees images
        if (tuned / name).exists():
            shutil.copy(tuned / name, out / name)
    _add_what_others_read(finished, out)


def _qwen_adapter(finished: Finished, out: Path) -> None:
    """For the code that came with a first-generation Qwen, whose tokenizer it keeps."""
    _check_adapter(finished)
    if not finished.source.renamed:
        raise KilotuneError(
            "the model is no first-generation Qwen",
            where=finished.recipe.model.name,
            fix="Its adapter has the model's own names already: --to adapter",
        )
    write_qwen_adapter(finished.tuned, finished.source.place, out)
    name_base(out, finished.recipe.model.name)
    shutil.copy(finished.tuned / GENERATION, out / GENERATION)
    _write_template(finished, out)


def _vllm(finished: Finished, out: Path) -> None:
    """For vLLM: the adapter where vLLM takes it, else the merged model, and `serve.sh`."""
    adapter = _vllm_takes_adapter(finished)
    (_adapter if adapter else _merged)(finished, out)
    _write_script(out / "serve.sh", serve_script(finished, adapter=adapter))


def _gguf(finished: Finished, out: Path) -> None:
    """For llama.cpp, LM Studio and others: the merged model as GGUF files, of 16 and of 8 bits."""
    converter()  # what is missing is said before the model is merged
    with tempfile.TemporaryDirectory() as alone:
        model = Path(alone) / "model"
        model.mkdir()
        _merged(finished, model)
        _write_metadata(finished, Path(alone))
        told = ("--metadata", Path(alone) / METADATA, "--model-name", finished.title)
        for kind in GGUF_TYPES:
            convert(model, out / f"{finished.name}-{kind}.gguf", "--outtype", kind.lower(), *told)
        if finished.source.sees_images:
            convert(model, out / f"mmproj-{finished.name}.gguf", "--mmproj")


def _gguf_instructions(finished: Finished, out: Path) -> None:
    """For llama.cpp: the merged model, and `convert.sh`."""
    model = out / "model"
    model.mkdir()
    _merged(finished, model)
    _write_metadata(finished, out)
    _write_script(out / "convert.sh", convert_script(finished, sees=finished.source.sees_images))


def _ollama(finished: Finished, out: Path) -> None:
    """For Ollama: the merged model, a `Modelfile`, and `create.sh`, which makes a GGUF file."""
    if finished.source.sees_images:
        raise KilotuneError(
            "what Ollama does with images cannot be said in a Modelfile",
            where=finished.recipe.model.name,
            fix="Export for a program that runs the template itself: --to vllm or --to "
            "gguf-instructions",
        )
    text = modelfile(finished, finished.source.config)
    model = out / "model"
    model.mkdir()
    _merged(finished, model)
    (out / "Modelfile").write_text(text, encoding="utf-8")
    _write_metadata(finished, out)
    _write_script(out / "create.sh", create_script(finished))


def _vllm_takes_adapter(finished: Finished) -> bool:
    """Whether vLLM takes the adapter beside the base model: plain LoRA of its language layers."""
    if not finished.has_adapter or finished.source.renamed:
        return False
    other = finished.adapter.get("use_dora") or finished.adapter.get("modules_to_save")
    language = getattr(finished.recipe.tune, "parts", ()) == ("language",)
    return language and not other and finished.adapter["r"] <= LARGEST_RANK


def _copy_tuned(finished: Finished, out: Path) -> None:
    """All but the card, which is that of the run's own folder."""
    ignored, mode = shutil.ignore_patterns(CARD), out.stat().st_mode
    # The content alone: an archived run is read-only, and to these copies more is written.
    shutil.copytree(
        finished.tuned, out, ignore=ignored, dirs_exist_ok=True, copy_function=shutil.copyfile
    )
    out.chmod(mode)


def _add_what_others_read(finished: Finished, out: Path) -> None:
    """Settings where other programs look for them, and SentencePiece's own file of the tokenizer.

    Converters read that one where there is one, and transformers writes it no more.
    """
    add_older_settings(out)
    for name in SENTENCE_PIECE:
        file = file_of(finished.source.place, name)
        if file is not None and not (out / name).exists():
            shutil.copyfile(file, out / name)


def _write_template(finished: Finished, folder: Path) -> None:
    """The template without need of arguments: programs that serve give none."""
    (folder / TEMPLATE).write_text(standalone(finished.template), encoding="utf-8")


def _write_metadata(finished: Finished, folder: Path) -> None:
    """What the converter is to write of decoding: by itself it knows no greedy one."""
    text = json.dumps(finished.decoding.gguf_metadata, indent=2)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def _write_script(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)


def _check_adapter(finished: Finished) -> None:
    if not finished.has_adapter:
        raise KilotuneError(
            "the layers themselves were trained, and there is no adapter",
            where=str(finished.tuned),
            fix="Export the whole model: --to merged",
        )


FORMS: dict[str, Callable[[Finished, Path], None]] = {
    "adapter": _adapter,
    "merged": _merged,
    "qwen-adapter": _qwen_adapter,
    "vllm": _vllm,
    "gguf": _gguf,
    "gguf-instructions": _gguf_instructions,
    "ollama": _ollama,
}
