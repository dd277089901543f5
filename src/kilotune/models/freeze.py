"""What is trained, what is frozen, and the proof that the frozen part stayed as it was."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch

from kilotune.errors import KilotuneError, some
from kilotune.models.pretrained import Model
from kilotune.models.proof import FreezeProof, Gradients
from kilotune.models.quantisation import elements
from kilotune.models.sharding import cut_like, whole
from kilotune.models.streaming import streamed_layers
from kilotune.models.trainable import of_adapter, plain_name, select_trained
from kilotune.recipe.schema import Method


class Tunable:
    """A model of which a part is trained. Knows its base: the model as it came.

    `model` is what to train and to generate with.
    """

    def __init__(
        self, model: Model, settings: Method, seed: int, known: Mapping[str, str] | None = None
    ) -> None:
        """Wrap `model`. `known` are the digests of its tensors, if they have been taken."""
        known = known or {}
        self.model = select_trained(model, settings, seed)
        self._trained = frozenset(n for n, p in self.model.named_parameters() if p.requires_grad)
        self.adapted = hasattr(self.model, "peft_config")
        # Whether adapters are all that differs from the base.
        self.adapter = self.adapted and all(map(of_adapter, self._trained))
        self._start = {name: p.detach().clone() for name, p in self.trained()}
        self._hashes = {n: known.get(plain_name(n)) or _digest(t) for n, t in self.frozen()}

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that the optimiser may change."""
        return ((name, p) for name, p in self.model.named_parameters() if name in self._trained)

    def to_save(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """What is trained, and adapters whole, whatever of them is frozen."""
        return (
            (name, p)
            for name, p in self.model.named_parameters()
            if name in self._trained or of_adapter(name)
        )

    def frozen(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and tensors that must not change, buffers included, streamed ones read anew."""
        yield from ((n, p) for n, p in self.model.named_parameters() if n not in self._trained)
        yield from self.model.named_buffers()
        for path, layer in streamed_layers(self.model):
            tensors = layer.tensors(torch.device("cpu"))
            yield from ((f"{path}.{name}", tensor) for name, tensor in tensors.items())

    @property
    def digests(self) -> Mapping[str, str]:
        """Of every frozen tensor by name, as it was before training."""
        return self._hashes

    def prove(self, gradients: Gradients | None = None, best_step: int = 0) -> FreezeProof:
        """Hash the frozen tensors again and look which trained ones moved.

        Raises KilotuneError that names every frozen tensor that changed, every trained one that
        no gradient reached, and every one that did not move though a gradient had reached it by
        `best_step`, the step whose weights these are.
        """
        after = {name: _digest(tensor) for name, tensor in self.frozen()}
        moved = {name: not torch.equal(whole(p), self._start[name]) for name, p in self.trained()}
        first = gradients.first if gradients else {}
        proof = FreezeProof(
            frozen={name: (self._hashes[name], after[name]) for name in self._hashes},
            moved=tuple(name for name, did in moved.items() if did),
            unmoved=tuple(name for name, did in moved.items() if not did),
            first_gradient={name: first[name] for name in moved if name in first},
        )
        if proof.changed:
            raise KilotuneError(
                f"frozen tensors changed during training: {some(proof.changed)}",
                fix="This is a fault of kilotune or of the model's code; please report it",
            )
        if gradients:
            check_reached(moved, gradients)
        if stuck := [name for name in proof.unmoved if first.get(name, best_step + 1) <= best_step]:
            raise KilotuneError(
                f"trained tensors are as they were, though they had gradients: {some(stuck)}",
                where="tune.learning_rate",
                fix="The steps are too small for the numbers to hold: raise it",
            )
        return proof

    @contextmanager
    def as_base(self) -> Iterator[Model]:
        """The base model, inside a `with`: adapters off, trained weights as they began."""
        tuned = {name: p.detach().clone() for name, p in self.trained() if not of_adapter(name)}
        self._put(self._start, tuned)
        try:
            with self.model.disable_adapter() if self.adapted else nullcontext():
                yield self.model
        finally:
            self._put(tuned, tuned)
            # PEFT lets every adapter that it turns on again be trained.
            for name, parameter in self.model.named_parameters():
                parameter.requires_grad_(name in self._trained)

    def release(self) -> Model:
        """The model as it came, for another `Tunable`: adapters gone, trained weights put back."""
        self._put(self._start, [name for name in self._start if not of_adapter(name)])
        self._start = {}  # as large as what was trained
        model = self.model.unload() if self.adapted else self.model
        vars(model).pop("peft_config", None)  # PEFT's mark would make the next one a second
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        return model

    def parameter_counts(self) -> tuple[int, int]:
        """Trained and total parameters."""
        total = sum(map(elements, self.model.parameters()))
        for _, layer in streamed_layers(self.model):
            total += sum(p.numel() for p in layer.layer.parameters())
        return sum(p.numel() for _, p in self.trained()), total

    def _put(self, tensors: Mapping[str, torch.Tensor], names: Iterable[str]) -> None:
        parameters = dict(self.trained())
        with torch.no_grad():
            for name in names:
                parameters[name].copy_(cut_like(tensors[name], parameters[name]))


def check_reached(trained: Iterable[str], gradients: Gradients) -> None:
    """Raise KilotuneError that names the `trained` tensors which no gradient ever reached.

    One step that counts is enough for a gradient, but LoRA's A needs two: at the first its B is
    zero, and so is its gradient.
    """
    missed = [
        name
        for name in trained
        if name not in gradients.first and gradients.steps > ("lora_A" in name)
    ]
    if missed:
        raise KilotuneError(
            f"trained tensors that no gradient reached in {gradients.steps} steps: {some(missed)}",
            where="tune",
            fix="Nothing in the data trains them: name them in tune.frozen, or leave out the part",
        )


def digests_of(model: Model) -> dict[str, str]:
    """Of every parameter and buffer of a model as it came, those on disk left out."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: _digest(tensor) for name, tensor in named}


def _digest(tensor: torch.Tensor) -> str:
    raw = whole(tensor).cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(raw.numpy().data, digest_size=16).hexdigest()
