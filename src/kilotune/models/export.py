"""Tuned weights to a folder that plain transformers and peft load, and back."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from kilotune import processes
from kilotune.data.writers import on_disk
from kilotune.models.freeze import Tunable
from kilotune.models.load import Model, compute_dtype, load_model, load_tokenizer, locate
from kilotune.models.merge import write_merged
from kilotune.models.sharding import whole
from kilotune.models.streaming import load_base
from kilotune.models.vision import Vision
from kilotune.recipe.schema import Recipe
from kilotune.system_errors import naming

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
    part = run / f".{folder.name}.part"
    if processes.leads():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    with naming(folder):
        if merged:
            write_merged(model, part)
        if not processes.leads():
            return folder
        if not merged:
            model.save_pretrained(part, state_dict=state)
        if vision is not None:
            vision.save(part, tokenizer)
        tokenizer.save_pretrained(part)
        generation.save_pretrained(part)
        on_disk(part)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that ended between this and its verdict
    part.rename(folder)
    return folder


def _tensors(model: Model) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, each once, and the buffers that a checkpoint holds."""
    yield from model.named_parameters()
    kept = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in kept)


def tuned_folder(run: Path) -> Path:
    """Where a finished run keeps its tuned weights."""
    return run / (ADAPTER if (run / ADAPTER).is_dir() else WHOLE)


def load_tuned(run: Path, recipe: Recipe, available: int) -> tuple[Model, Any, GenerationConfig]:
    """The tuned model of a run, its tokenizer and its decoding, ready to generate.

    Adapters of a model that does not fit in `available` bytes sit on a streamed one.
    """
    folder, settings = tuned_folder(run), recipe.model
    if folder.name == ADAPTER:
        dtype = compute_dtype(settings.precision)
        base = load_base(locate(settings), recipe, dtype, available)
        model = PeftModel.from_pretrained(base, folder).eval()
    else:
        model = load_model(str(folder), settings, torch.float32)
    tokenizer = load_tokenizer(str(folder), settings)
    return model, tokenizer, GenerationConfig.from_pretrained(folder)
