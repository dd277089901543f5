"""Two ways to the same loss: how far apart they are, and the gradients with them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from kilotune.models.load import Model

# At the start LoRA's B is zero and A has no gradient, so that errors in it could not be seen.
NOISE = 0.02


@dataclass(frozen=True, slots=True)
class Difference:
    """Relative differences of a loss, and of its gradient over everything that is trained."""

    loss: float
    gradient: float


def compare(
    model: Model, plain: Callable[[], torch.Tensor], fast: Callable[[], torch.Tensor]
) -> Difference:
    """How far `fast` is from `plain`, both scalar losses of `model`.

    Dropout is off and LoRA's B is filled with noise meanwhile; the model is left as it was,
    without gradients.
    """
    training = model.training
    model.eval()
    try:
        with _perturbed(model):
            expected, slopes = _loss_and_gradient(model, plain)
            loss, found = _loss_and_gradient(model, fast)
    finally:
        model.train(training)
    return Difference(
        loss=abs(loss - expected) / max(abs(expected), 1e-12),
        gradient=float((found - slopes).norm() / slopes.norm().clamp(min=1e-12)),
    )


def _loss_and_gradient(
    model: Model, loss_of: Callable[[], torch.Tensor]
) -> tuple[float, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss = loss_of()
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for p in model.parameters() if p.requires_grad]
    # A parameter that a path leaves out has a gradient of zero, and that is a difference.
    slopes = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
    model.zero_grad(set_to_none=True)
    return float(loss.detach()), torch.cat(slopes).double()


@contextmanager
def _perturbed(model: Model) -> Iterator[None]:
    chosen = [p for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name]
    before = [p.detach().clone() for p in chosen]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in chosen:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(NOISE * noise.to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, tensor in zip(chosen, before, strict=True):
                parameter.copy_(tensor)
