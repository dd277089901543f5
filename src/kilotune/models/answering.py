"""Linear layers of a model that is only asked: fewer passes over memory, equal up to rounding.

What training needs of an adapter is more than an answer does. PEFT computes it in float32 beside
weights in bfloat16, in six passes over each layer's activations; here its thin products are of the
weights' type, as in training, and added in place. And a processor multiplies few rows by a bfloat16
weight half as fast as it could, since oneDNN lays the weight out anew each time: one that is asked
often is laid out once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from kilotune.models.fused_lora import plain_lora
from kilotune.models.pretrained import Model
from kilotune.models.streaming import streamed_layers
from kilotune.system.free_memory import free_memory

# Up to so many rows a laid out weight is always faster, beyond that only one that widens; and laid
# out anew it takes as long as three or four products of few rows.
FEW_ROWS, OFTEN = 256, 4
# Of the memory that is free, the part that laid out weights may take.
SHARE = 4


@contextmanager
def answering(model: Model) -> Iterator[None]:
    """Let `model` compute faster inside a `with`, in which its weights must stay as they are.

    Only in torch's inference mode; layers that are not plain ones are left alone.
    """
    with ExitStack() as stack:
        room = _Room(free_memory() // SHARE)
        for module in () if streamed_layers(model) else model.modules():
            forward: Callable[..., Tensor] | None = None
            if type(module) is Linear and plain_lora(module):
                forward = _Adapted(module)
            elif type(module) is torch.nn.Linear and _layable(module):
                forward = _LaidOut(module, room)
            if forward is not None:
                stack.callback(_put_back, module, vars(module).get("forward"))
                module.forward = forward
        yield


def _put_back(module: torch.nn.Module, forward: Callable[..., Tensor] | None) -> None:
    """Let `module` have the forward of its own that it had before, or its class's."""
    if forward is None:
        del module.forward
    else:
        module.forward = forward


@dataclass(slots=True)
class _Room:
    """The bytes that laid out weights may still take."""

    left: int

    def take(self, size: int) -> bool:
        """Whether there are `size` bytes; they are taken then."""
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(slots=True)
class _LaidOut:
    """A linear layer's forward, by a weight that is laid out once it is clear that it pays."""

    layer: torch.nn.Linear
    room: _Room
    calls: int = 0
    weight: Tensor | None = None

    def __call__(self, taken: Tensor) -> Tensor:
        few = taken.numel() <= FEW_ROWS * taken.shape[-1]
        if not torch.is_inference_mode_enabled() or taken.dtype != torch.bfloat16:
            return torch.nn.Linear.forward(self.layer, taken)
        if few and self.weight is None:
            self.calls += 1
            if self.calls == OFTEN and self.room.take(self.layer.weight.nbytes):
                lay_out = torch.ops.mkldnn._reorder_linear_weight
                self.weight = lay_out(self.layer.weight, FEW_ROWS // 2)
        widens = self.layer.out_features > self.layer.in_features
        if self.weight is None or not (few or widens):
            return torch.nn.Linear.forward(self.layer, taken)
        product = torch.ops.mkldnn._linear_pointwise
        result: Tensor = product(taken, self.weight, self.layer.bias, "none", [], "")
        return result


@dataclass(slots=True)
class _Adapted:
    """A LoRA layer's forward: x W' + bias, to which scale (x A') B' is added in place."""

    layer: Linear
    thin: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, taken: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.layer
        out_of_the_ordinary = (
            args or kwargs or layer.merged or not torch.is_inference_mode_enabled()
        )
        if out_of_the_ordinary or torch.is_autocast_enabled(taken.device.type):
            return Linear.forward(layer, taken, *args, **kwargs)
        result: Tensor = layer.base_layer(taken)
        if layer.disable_adapters:
            return result
        down, up = self._matrices(layer.active_adapters[0], result.dtype)
        low = torch.nn.functional.linear(taken, down)
        result.view(-1, up.shape[1]).addmm_(low.view(-1, up.shape[0]), up)
        return result

    def _matrices(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A of shape (rank, in) and scale B' of shape (rank, out)."""
        if name not in self.thin:
            down = self.layer.lora_A[name].weight.to(dtype)
            up = (self.layer.lora_B[name].weight * self.layer.scaling[name]).T.to(dtype)
            self.thin[name] = down, up.contiguous()
        return self.thin[name]


def _layable(layer: torch.nn.Linear) -> bool:
    """Whether the weight of `layer` is one that can be laid out: in bfloat16, on a processor."""
    weight = layer.weight
    plain = type(weight) is torch.nn.Parameter and weight.device.type == "cpu"
    return plain and weight.dtype == torch.bfloat16 and _lays_out()


@lru_cache(maxsize=1)
def _lays_out() -> bool:
    """Whether torch has oneDNN here, and it multiplies by a laid out weight as by any other."""
    taken = torch.arange(64).view(2, 32).to(torch.bfloat16)
    weight = torch.ones(16, 32, dtype=torch.bfloat16)
    try:
        laid = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        found = torch.ops.mkldnn._linear_pointwise(taken, laid, None, "none", [], "")
    except (AttributeError, RuntimeError):  # these functions are torch's own, not everybody's
        return False
    return torch.equal(found, torch.nn.functional.linear(taken, weight))
