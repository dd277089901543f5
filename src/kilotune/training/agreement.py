"""Whether a run may take the fast path: both are computed for its first examples and compared."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from kilotune.models.attention import UnsupportedError, packing_attention
from kilotune.models.freeze import Tunable
from kilotune.models.fused_layers import fused_layers
from kilotune.models.fused_lora import fused_lora
from kilotune.models.pretrained import Model
from kilotune.models.quantisation import quantised
from kilotune.models.streaming import streamed_layers
from kilotune.models.vision import Eyes
from kilotune.rendering.label_mask import Rendering
from kilotune.system.free_memory import free_memory
from kilotune.system.os_errors import lacks_memory
from kilotune.training.activations import Activations
from kilotune.training.batches import Batch, collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import pack
from kilotune.training.packing_check import compare
from kilotune.training.tuning_result import Agreement

# Relative differences that rounding explains. In float32 they are about 1e-6.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}


@contextmanager
def fast_path(model: Model) -> Iterator[None]:
    """Let `model` take packs, its adapters, norms and units fused.

    Raises UnsupportedError where packs cannot be.
    """
    with packing_attention(model), fused_lora(model), fused_layers(model):
        yield


def agree(
    tunable: Tunable,
    renderings: Sequence[Rendering],
    pad_id: int,
    longest: int,
    activations: Activations | None = None,
    eyes: Eyes | None = None,
) -> Agreement:
    """Compare loss and gradient of packed and padded batches on two of `renderings`.

    The shortest and the longest: two show how examples share a beginning and how one is padded,
    more would cost more than they say. One with images is there too, if any has some.

    In float32 where memory allows, without dropout; both from cached states where there are
    `activations`. `longest` is the longest example that will come, in tokens: what only that one
    overflows, such as a window of attention, is found here too. The model is left as it was, to
    the bit. Costs about as much as a step of two examples by either path.
    """
    dropout = _dropout(tunable.model)
    if dropout:
        return Agreement("padded", f"a shared beginning would share the mask of {dropout}")
    ordered = sorted(renderings, key=lambda r: len(r.token_ids))
    sample = [ordered[0], *ordered[1:][-1:]]
    if not any(rendering.images for rendering in sample):
        sample += [rendering for rendering in ordered if rendering.images][-1:]
    model = tunable.model
    states = activations.states if activations else None

    def plain() -> Tensor:
        return _loss(model, collate(sample, pad_id, states, eyes))

    def fast() -> Tensor:
        batch = pack(sample, states, eyes)
        assert batch.pack
        with fast_path(model):
            return _loss(model, replace(batch, pack=replace(batch.pack, longest=longest)))

    for wide in (True, False):
        try:
            with (
                _in_float32(model) if wide else nullcontext(),
                activations.bypassed(model) if activations else nullcontext(),
            ):
                precision = model.dtype
                found = compare(tunable, plain, fast)
            return _judge(precision, found.loss, found.gradient)
        except UnsupportedError as error:
            return Agreement("padded", f"the model does not allow packing: {error}")
        except (TypeError, ValueError, LookupError, RuntimeError, AttributeError, MemoryError) as e:
            # Any architecture may come along, with code of its own: whatever it trips over, the
            # padded path is there.
            if not lacks_memory(e):
                return Agreement("padded", f"the model does not take packs ({type(e).__name__})")
    return Agreement("padded", "there was not enough memory to compare packed batches with padded")


def _loss(model: Model, batch: Batch) -> Tensor:
    moved = batch.to(model.device)
    if moved.hidden_states is not None:
        moved = replace(moved, hidden_states=moved.hidden_states.to(model.dtype))
    with torch.autocast(model.device.type, enabled=False):
        return LabelledLoss(model).sum(model, moved) / moved.labelled_count()


def _judge(precision: torch.dtype, loss_error: float, gradient_error: float) -> Agreement:
    tolerance = TOLERANCE[precision]
    name = str(precision).removeprefix("torch.")
    errors = f"loss {loss_error:.1e}, gradient {gradient_error:.1e} in {name}"
    # Written so that an error that is no number fails.
    if loss_error <= tolerance and gradient_error <= tolerance:
        return Agreement("packed", f"equal to padded: {errors}", name, loss_error, gradient_error)
    reason = f"packed differs from padded by more than {tolerance:g}: {errors}"
    return Agreement("padded", reason, name, loss_error, gradient_error)


def _dropout(model: Model) -> str:
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            return f"the dropout of {module.p:g} in {name}"
    share = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return f"the attention dropout of {share:g}" if share else ""


@contextmanager
def _in_float32(model: Model) -> Iterator[None]:
    """All weights in float32 for a while, if memory allows; going back loses nothing.

    A streamed model stays as it is: memory is what it lacks. So does a quantised one, whose
    weights have no such form.
    """
    tensors = [*model.parameters(), *model.buffers()]
    half = [t for t in tensors if t.dtype in (torch.bfloat16, torch.float16)]
    before = [tensor.dtype for tensor in half]
    room = free_memory()
    if model.device.type == "cuda":
        room, _ = torch.cuda.mem_get_info(model.device)
    fixed = streamed_layers(model) or quantised(model)
    if fixed or 4 * sum(tensor.numel() for tensor in half) > room // 2:
        yield
        return
    try:
        for tensor in half:
            tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, dtype in zip(half, before, strict=True):
            tensor.data = tensor.data.to(dtype)
