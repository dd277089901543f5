"""Tuned weights to a folder that plain transformers and peft load, and back."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import GenerationConfig

from kilotune import distributed
from kilotune.data.files.writers import remove, written_atomically
from kilotune.errors import KilotuneError, some
from kilotune.models.checkpoint import WHOLE as WEIGHTS
from kilotune.models.checkpoint import tensor_files
from kilotune.models.freeze import Tunable
from kilotune.models.hub import weight_names
from kilotune.models.identity import ADAPTER_CONFIG, ADAPTER_WEIGHTS, tuned_digest
from kilotune.models.integrity import (
    NOT_OF_THE_FILE,
    first_line,
    not_finite,
    read_json,
    tensor_names,
)
from kilotune.models.interchange import add_older_settings
from kilotune.models.merge import write_merged
from kilotune.models.pretrained import Model, compute_dtype
from kilotune.models.qwen import GENERATION
from kilotune.models.sharding import whole
from kilotune.models.source import locate, read_generation, source_at
from kilotune.models.streaming import load_base
from kilotune.models.vision import Vision
from kilotune.recipe.advice import RECIPE, advised
from kilotune.recipe.schema import Recipe

ADAPTER, WHOLE = "adapter", "model"


def save_tuned(
    tunable: Tunable,
    tokenizer: Any,
    generation: GenerationConfig,
    run: Path,
    vision: Vision | None = None,
) -> Path:
    """Save into `run`: `adapter/`, or `model/` where any of the model's own weights were trained.

    Adapters beside such weights are merged into it. With them go the tokenizer, its chat template,
    `generation_config.json`, and the image processor of a model that has `vision`. Returns the
    folder.
    """
    folder = run / (ADAPTER if tunable.adapter else WHOLE)
    model = tunable.model
    merged = tunable.adapted and not tunable.adapter
    tensors = tunable.to_save() if tunable.adapter else _tensors(model)
    state = {} if merged else {name: whole(tensor) for name, tensor in tensors}
    if not distributed.leads():
        if merged:
            write_merged(model, folder)  # takes part, and writes nothing
        return folder
    remove(folder)  # of a run that ended between this and its verdict
    with written_atomically(folder) as part:
        part.mkdir()
        if merged:
            write_merged(model, part)
        else:
            model.save_pretrained(part, state_dict=state)
        if vision is not None:
            vision.save(part, tokenizer)
        tokenizer.save_pretrained(part)
        generation.save_pretrained(part)
        add_older_settings(part)
    return folder


def _tensors(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, each once, and the buffers that a checkpoint holds."""
    yield from model.named_parameters()
    kept = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in kept)


def tuned_folder(run: Path) -> Path:
    """Where a finished run keeps its tuned weights."""
    return run / (ADAPTER if (run / ADAPTER).is_dir() else WHOLE)


def check_tuned(run: Path, recorded: Mapping[str, str]) -> None:
    """Raise KilotuneError where the tuned weights of `run` are damaged, other ones, or not finite.

    `recorded` is the run's identity; without `tuned` in it they are not compared. Whether they are
    all there is seen when they are loaded.
    """
    folder = tuned_folder(run)
    if not folder.is_dir():
        raise _damaged(run, "the folder of the tuned weights is gone", folder)
    for name in (ADAPTER_CONFIG if folder.name == ADAPTER else "config.json", GENERATION):
        if not (folder / name).is_file():
            raise _damaged(run, "the file is gone", folder / name)
        with _of_the_run(run):
            read_json(folder / name)
    with _of_the_run(run):
        tensors = tensor_files(_weights(run, folder))
        found = tuned_digest(folder) if "tuned" in recorded else None
    if found != recorded.get("tuned"):
        raise _damaged(run, "not the weights, settings and tokenizer that the run saved", folder)
    if broken := not_finite(_read(tensors)):
        why = "is damaged" if "tuned" not in recorded else "ended in such weights: tuning diverged"
        raise KilotuneError(
            f"weights that are not finite: {some(broken)}; the run {why}",
            where=str(folder),
            fix="Tune again, with a lower tune.learning_rate: "
            f"{advised('run', run / RECIPE)} --set tune.learning_rate=…",
        )


def load_tuned(
    run: Path, recipe: Recipe, available: int, adapter: Path | None = None
) -> tuple[Model, Any, GenerationConfig]:
    """The tuned model of a run, its tokenizer and its decoding, ready to generate.

    With another `adapter` of the run in place of the one it ended with, if one is given.

    Adapters of a model that does not fit in `available` bytes sit on a streamed one. Raises
    KilotuneError for a folder with anything broken or missing in it.
    """
    folder, settings = tuned_folder(run), recipe.model
    generation = tuned_generation(folder)
    if folder.name == ADAPTER:
        dtype = compute_dtype(settings.precision)
        base = load_base(locate(settings), recipe.tune, dtype, available)
        model = with_adapter(base, adapter or folder)
    else:
        with _of_the_run(run):
            model = source_at(folder, settings).model(torch.float32)
    with _of_the_run(run):
        tokenizer = source_at(folder, settings).tokenizer()
    return model, tokenizer, generation


def with_adapter(base: Model, folder: Path) -> Model:
    """`base` with the adapter in `folder`, ready to generate.

    PEFT begins anew what is missing from it and passes over what has other names. Raises
    KilotuneError for both, for other shapes, and for settings that PEFT cannot read.
    """
    run, file = folder.parent, folder / ADAPTER_WEIGHTS
    with _of_the_run(run):
        held = set(tensor_names(file))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names, which are looked at here
            model = PeftModel.from_pretrained(base, folder).eval()
    except NOT_OF_THE_FILE:
        raise
    except Exception as error:  # peft's and torch's own, for every way a file can be wrong
        raise _damaged(run, f"not an adapter of this model ({_reason(error)})", folder) from error
    asked = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    if missing := sorted(asked - held):
        raise _damaged(run, f"the adapter lacks {some(missing)}", file)
    if unknown := sorted(held - asked):
        raise _damaged(
            run, f"the adapter holds {some(unknown)}, which the model does not have", file
        )
    return model


def tuned_generation(folder: Path) -> GenerationConfig:
    """How the tuned model in `folder` decodes. Raises KilotuneError for what cannot be read."""
    with _of_the_run(folder.parent):
        found = read_generation(str(folder))
    if found is None:
        raise _damaged(folder.parent, "the file is gone", folder / GENERATION)
    return found


def _weights(run: Path, folder: Path) -> list[Path]:
    """The files of the tuned weights. Raises KilotuneError where one is gone."""
    adapter = folder.name == ADAPTER
    names = [ADAPTER_WEIGHTS] if adapter else weight_names(str(folder)) or [WEIGHTS]
    for name in names:
        if not (folder / name).is_file():
            raise _damaged(run, "the file is gone", folder / name)
    return [folder / name for name in names]


def _read(files: Mapping[str, Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `files`, one at a time."""
    for name, path in files.items():
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(name)


def _reason(error: Exception) -> str:
    """What torch says of a state that does not fit stands on its second line."""
    return first_line(Exception(str(error).partition("\n")[2] or str(error)))


@contextmanager
def _of_the_run(run: Path) -> Iterator[None]:
    """What is broken inside was saved by `run`: that is how to recreate it."""
    try:
        yield
    except KilotuneError as error:
        raise _damaged(run, error.what, error.where) from error


def _damaged(run: Path, what: str, where: Path | str) -> KilotuneError:
    fix = f"Restore it from a copy, or tune again: {advised('run', run / RECIPE)}"
    return KilotuneError(what, where=str(where), fix=fix)
