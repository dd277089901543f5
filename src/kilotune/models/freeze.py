"""What is trained, what is frozen, and the proof that the frozen part stayed as it was."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from kilotune.errors import KilotuneError, some
from kilotune.models.load import Model, decoder_layers, layer_count
from kilotune.models.lora import attach_lora, layer_indices
from kilotune.models.sharding import whole
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import parameters_of
from kilotune.recipe.schema import FullSettings, LoraSettings, TopLayersSettings

Method = LoraSettings | TopLayersSettings | FullSettings


@dataclass(frozen=True, slots=True)
class FreezeProof:
    """Hashes of every frozen tensor before and after, and which trained tensors moved."""

    frozen: dict[str, tuple[str, str]]
    moved: tuple[str, ...]
    unmoved: tuple[str, ...]

    @property
    def changed(self) -> list[str]:
        """Frozen tensors that are not what they were."""
        return [name for name, (before, after) in self.frozen.items() if before != after]


class Tunable:
    """A model of which a part is trained. Knows its base: the model as it came.

    `model` is what to train and to generate with.
    """

    def __init__(self, model: Model, settings: Method, seed: int) -> None:
        self.adapter = isinstance(settings, LoraSettings)
        if isinstance(settings, LoraSettings):
            self.model = attach_lora(model, settings, seed)
        elif isinstance(settings, FullSettings):
            self.model = _train_parts(model, settings)
        else:
            self.model = _train_layers(model, settings)
        self._start = {name: p.detach().clone() for name, p in self.trained()}
        self._hashes = {name: _digest(tensor) for name, tensor in self.frozen()}

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that the optimiser may change."""
        return ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def frozen(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors that must not change, buffers included, streamed ones read anew."""
        yield from ((n, p) for n, p in self.model.named_parameters() if not p.requires_grad)
        yield from self.model.named_buffers()
        for path, layer in streamed_layers(self.model):
            tensors = layer.tensors(torch.device("cpu"))
            yield from ((f"{path}.{name}", tensor) for name, tensor in tensors.items())

    @property
    def digests(self) -> Mapping[str, str]:
        """Of every frozen tensor by name, as it was before training."""
        return self._hashes

    def prove(self) -> FreezeProof:
        """Hash the frozen tensors again and look which trained ones moved.

        Raises KilotuneError that names every frozen tensor that changed.
        """
        after = {name: _digest(tensor) for name, tensor in self.frozen()}
        moved = {name: not torch.equal(whole(p), self._start[name]) for name, p in self.trained()}
        proof = FreezeProof(
            frozen={name: (self._hashes[name], after[name]) for name in self._hashes},
            moved=tuple(name for name, did in moved.items() if did),
            unmoved=tuple(name for name, did in moved.items() if not did),
        )
        if proof.changed:
            raise KilotuneError(
                f"frozen tensors changed during training: {some(proof.changed)}",
                fix="This is a fault of kilotune or of the model's code; please report it",
            )
        return proof

    @contextmanager
    def as_base(self) -> Iterator[Model]:
        """The base model, inside a `with`: adapters off, or trained tensors as they began."""
        if self.adapter:
            with self.model.disable_adapter():
                yield self.model
            return
        tuned = {name: p.detach().clone() for name, p in self.trained()}
        self._put(self._start)
        try:
            yield self.model
        finally:
            self._put(tuned)

    def parameter_counts(self) -> tuple[int, int]:
        """Trained and total parameters."""
        total = sum(p.numel() for p in self.model.parameters())
        for _, layer in streamed_layers(self.model):
            total += sum(p.numel() for p in layer.layer.parameters())
        return sum(p.numel() for _, p in self.trained()), total

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained():
                parameter.copy_(tensors[name])


def _train_parts(model: Model, settings: FullSettings) -> Model:
    model.requires_grad_(False)
    for part in settings.parts:
        for parameter in parameters_of(model, part):
            parameter.requires_grad_(True)
    return model


def _train_layers(model: Model, settings: TopLayersSettings) -> Model:
    model.requires_grad_(False)
    _, layers = decoder_layers(model)
    for index in layer_indices(settings.layers, layer_count(model)):
        layers[index].requires_grad_(True)
    return model


def _digest(tensor: torch.Tensor) -> str:
    raw = whole(tensor).cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(raw.numpy().data, digest_size=16).hexdigest()
