"""Two ways to the same loss: how far apart they are, and the gradients with them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from kilotune.models.freeze import Tunable
from kilotune.training.tuning_result import Difference

# At the start LoRA's B is zero and A has no gradient, so that errors in it could not be seen.
NOISE = 0.02


def compare(
    tunable: Tunable, plain: Callable[[], Tensor], fast: Callable[[], Tensor]
) -> Difference:
    """How far `fast` is from `plain`, both scalar losses of the model.

    Dropout is off and LoRA's B is filled with noise meanwhile; the model is left as it was, to
    the bit.
    """
    model = tunable.model
    training = model.training
    model.eval()
    try:
        with _perturbed(tunable):
            expected = _loss_and_gradient(tunable, plain)
            found = _loss_and_gradient(tunable, fast)
    finally:
        model.train(training)
    return Difference(*map(_relative, found, expected))


def _loss_and_gradient(
    tunable: Tunable, loss_of: Callable[[], Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    trained = [parameter for _, parameter in tunable.trained()]
    loss = loss_of()
    # A parameter that a path leaves out has a gradient of zero, and that is a difference.
    slopes = torch.autograd.grad(loss, trained, materialize_grads=True, allow_unused=True)
    return (loss.detach(),), slopes


def _relative(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The norm over all tensors together, one at a time: they may be as large as the model."""
    far = sum(float((a - b).float().norm()) ** 2 for a, b in zip(found, expected, strict=True))
    whole = sum(float(b.float().norm()) ** 2 for b in expected)
    return math.sqrt(far / whole) if whole else math.nan


@contextmanager
def _perturbed(tunable: Tunable) -> Iterator[None]:
    """LoRA's B away from zero, and back to the bit."""
    kept = [(p, p.detach().clone()) for name, p in tunable.trained() if "lora_B" in name]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter, _ in kept:
            noise = NOISE * torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
