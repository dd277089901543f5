"""Whether a run may take the fast path: both are computed for its first examples and compared."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from kilotune.models.attention import UnsupportedError, packing_attention
from kilotune.models.freeze import Tunable
from kilotune.models.fused_lora import fused_lora
from kilotune.models.load import Model
from kilotune.render.labels import Rendering
from kilotune.train.batches import Batch, collate
from kilotune.train.loss import LabelledLoss, labelled_count
from kilotune.train.packing import pack

# Relative differences that rounding explains. In float32 they are about 1e-6.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
# Two examples show how they share a beginning; more would cost more than they say.
EXAMPLES = 2
# LoRA's B begins at zero, where A has no gradient and errors could hide.
PERTURBATION = 0.02


@dataclass(frozen=True, slots=True)
class Agreement:
    """Which path a run takes and why, with the relative errors of the packed path.

    `gradient_error` is of the norm over all trained parameters. Errors are None where the packed
    path could not be computed at all.
    """

    path: str
    reason: str
    precision: str = ""
    loss_error: float | None = None
    gradient_error: float | None = None

    @property
    def packed(self) -> bool:
        """Whether examples are packed."""
        return self.path == "packed"


@contextmanager
def fast_path(model: Model) -> Iterator[None]:
    """Let `model` take packs, its adapters fused; raises UnsupportedError where that cannot be."""
    with packing_attention(model), fused_lora(model):
        yield


def agree(tunable: Tunable, renderings: Sequence[Rendering], pad_id: int) -> Agreement:
    """Compare loss and gradient of packed and padded batches on the first of `renderings`.

    In float32 where memory allows, without dropout. The model is left as it was, to the bit.
    Costs about as much as one padded step of EXAMPLES examples.
    """
    dropout = _dropout(tunable.model)
    if dropout:
        return Agreement("padded", f"a shared beginning would share the mask of {dropout}")
    sample = sorted(renderings, key=lambda r: len(r.token_ids))[:EXAMPLES]
    model = tunable.model
    training = model.training
    model.eval()
    try:
        with _in_float32(model), _perturbed(tunable):
            precision = model.dtype
            plain = _loss_and_gradient(tunable, collate(sample, pad_id))
            with fast_path(model):
                fast = _loss_and_gradient(tunable, pack(sample))
    except UnsupportedError as error:
        return Agreement("padded", f"the model does not allow packing: {error}")
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        # Any architecture may come along, with code of its own: whatever it trips over, the
        # padded path is there.
        return Agreement("padded", f"the model does not take packs ({type(error).__name__})")
    finally:
        model.train(training)
    return _judge(precision, *map(_relative, fast, plain))


def _judge(precision: torch.dtype, loss_error: float, gradient_error: float) -> Agreement:
    tolerance = TOLERANCE[precision]
    name = str(precision).removeprefix("torch.")
    errors = f"loss {loss_error:.1e}, gradient {gradient_error:.1e} in {name}"
    # Written so that an error that is no number fails.
    if loss_error <= tolerance and gradient_error <= tolerance:
        return Agreement("packed", f"equal to padded: {errors}", name, loss_error, gradient_error)
    reason = f"packed differs from padded by more than {tolerance:g}: {errors}"
    return Agreement("padded", reason, name, loss_error, gradient_error)


def _loss_and_gradient(tunable: Tunable, batch: Batch) -> tuple[Tensor, Tensor]:
    model = tunable.model
    moved = {key: value.to(model.device) for key, value in batch.items()}
    with torch.autocast(model.device.type, enabled=False):
        loss = LabelledLoss(model).sum(model, moved) / labelled_count(moved)
    trained = [parameter for _, parameter in tunable.trained()]
    slopes = torch.autograd.grad(loss, trained, materialize_grads=True, allow_unused=True)
    return loss.detach(), torch.cat([slope.flatten() for slope in slopes])


def _relative(fast: Tensor, plain: Tensor) -> float:
    return float((fast - plain).double().norm() / plain.double().norm())


def _dropout(model: Model) -> str:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            return f"the dropout of {module.p:g} in {name}"
    share = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return f"the attention dropout of {share:g}" if share else ""


@contextmanager
def _in_float32(model: Model) -> Iterator[None]:
    """All weights in float32 for a while, if memory allows; going back loses nothing."""
    tensors = [*model.parameters(), *model.buffers()]
    half = [t for t in tensors if t.dtype in (torch.bfloat16, torch.float16)]
    before = [tensor.dtype for tensor in half]
    room = psutil.virtual_memory().available
    if model.device.type == "cuda":
        room, _ = torch.cuda.mem_get_info(model.device)
    if 4 * sum(tensor.numel() for tensor in half) > room // 2:
        yield
        return
    for tensor in half:
        tensor.data = tensor.data.float()
    try:
        yield
    finally:
        for tensor, dtype in zip(half, before, strict=True):
            tensor.data = tensor.data.to(dtype)


@contextmanager
def _perturbed(tunable: Tunable) -> Iterator[None]:
    """LoRA's B away from zero, and back to the bit."""
    kept = [(p, p.detach().clone()) for name, p in tunable.trained() if "lora_B" in name]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter, _ in kept:
            noise = PERTURBATION * torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)
