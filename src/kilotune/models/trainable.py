"""Which parameters of a model are trained: by the method, then by patterns of their names."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch

from kilotune.errors import KilotuneError
from kilotune.models.lora import attach_lora, layer_indices
from kilotune.models.pretrained import Model, decoder_layers, layer_count
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import parameters_of
from kilotune.recipe.schema import (
    BitFitSettings,
    FullSettings,
    Layers,
    LoraSettings,
    Method,
    TopLayersSettings,
)


def select_trained(model: Model, settings: Method, seed: int) -> Model:
    """Let `model` train what `settings` say and nothing else; returned with adapters, if any.

    `tune.trainable` adds to the method and `tune.frozen` takes away from both. Raises
    KilotuneError for layers, parts or biases that there are not, for a pattern that matches
    nothing, and where nothing is left to train.
    """
    if isinstance(settings, LoraSettings):
        model = attach_lora(model, settings, seed)
    else:
        model.requires_grad_(False)
        for parameter in _chosen(model, settings):
            parameter.requires_grad_(True)
    for patterns, setting, trained in (
        (settings.trainable, "trainable", True),
        (settings.frozen, "frozen", False),
    ):
        for parameter in _matching(model, patterns, f"tune.{setting}"):
            parameter.requires_grad_(trained)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise KilotuneError("nothing is left to train", where="tune.frozen", fix="Freeze less")
    return model


def plain_name(name: str) -> str:
    """A parameter's name in the model without adapters; of an adapter without PEFT's additions."""
    name = name.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".default.", ".")


def of_adapter(name: str) -> bool:
    """Whether the parameter called `name` is an adapter's."""
    return "lora_" in name


def _chosen(
    model: Model, settings: TopLayersSettings | FullSettings | BitFitSettings
) -> list[torch.nn.Parameter]:
    if isinstance(settings, FullSettings):
        return [p for part in settings.parts for p in parameters_of(model, part)]
    if isinstance(settings, BitFitSettings):
        return _biases(model, settings.layers)
    if not settings.layers and settings.trainable:
        return []  # the head alone, say
    name, _ = decoder_layers(model)
    return [p for n, p in model.named_parameters() if _inside(model, name, settings.layers, n)]


def _biases(model: Model, layers: Layers) -> list[torch.nn.Parameter]:
    """Biases of the language part; of some layers alone, if not of all."""
    language = set(map(id, parameters_of(model, "language")))
    name, _ = decoder_layers(model)
    found = [
        parameter
        for own, parameter in model.named_parameters()
        if own.rpartition(".")[2] == "bias" and id(parameter) in language
        if layers == "all" or _inside(model, name, layers, own)
    ]
    if not found:
        raise KilotuneError(
            "there are no biases to train",
            where=f"tune.method=bitfit ({model.config.model_type})",
            fix="Choose tune.method=lora, or name other parameters: tune.method=top_layers, "
            "tune.layers=[] and tune.trainable=['*norm.weight']",
        )
    return found


def _inside(model: Model, name: str, layers: Layers, parameter: str) -> bool:
    """Whether `parameter` is of one of `layers` in the list of layers called `name`."""
    chosen = layer_indices(layers, layer_count(model))
    return parameter.startswith(tuple(f"{name}.{index}." for index in chosen))


def _matching(model: Model, patterns: Sequence[str], where: str) -> list[torch.nn.Parameter]:
    """The parameters whose plain names match any of `patterns`, under each of their names."""
    if not patterns:
        return []
    # A head tied to the embeddings is one parameter with two names.
    pairs = [(plain_name(n), p) for n, p in model.named_parameters(remove_duplicate=False)]
    on_disk = [
        f"{plain_name(path)}.{name}"
        for path, streamed in streamed_layers(model)
        for name, _ in streamed.layer.named_parameters()
    ]
    names = [*(name for name, _ in pairs), *on_disk]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise KilotuneError(
                f"no parameter is called '{pattern}'",
                where=where,
                fix=f"Patterns are of whole names, such as: {', '.join(_near(pattern, names))}",
            )
    return [p for n, p in pairs if any(fnmatchcase(n, pattern) for pattern in patterns)]


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """Names like `pattern`, those that differ in a number alone as one pattern."""
    known = list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))
    wanted = re.sub(r"\d+", "*", pattern)
    return get_close_matches(wanted, known, 3, cutoff=0.3) or known[:3]
