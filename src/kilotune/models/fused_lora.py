"""LoRA's forward and backward in fewer passes over memory, equal to PEFT's up to rounding.

Beside a product with a frozen weight an adapter does little arithmetic, but PEFT's formula reads
and writes whole activations for it many times. Here layers that take the same input (query, key
and value; gate and up) share one product with their A, results are added inside the products,
and thin matrices are multiplied in the orientation that libraries are fast in. Where weights are
bfloat16 the float32 adapters take part in that type, as under autocast; their gradients and steps
stay float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor

from kilotune.models.pretrained import Model


@contextmanager
def fused_lora(model: Model) -> Iterator[None]:
    """Let plain LoRA layers of `model` run fused inside a `with`; all others are left alone."""
    with ExitStack() as stack:
        for layers in _sharing(model):
            group = _Group(layers)
            for index, layer in enumerate(layers):
                layer.forward = _Fused(group, index)
                stack.callback(layer.__dict__.pop, "forward")
        yield


@dataclass(slots=True)
class _Group:
    """Layers that were seen to take the same input, and results that wait for their layer."""

    layers: list[Linear]
    taken: Tensor | None = None
    waiting: dict[int, Tensor] = field(default_factory=dict)

    def result(self, index: int, taken: Tensor) -> Tensor:
        """What layer `index` gives for `taken`: computed for all of them when the first asks."""
        if self.taken is taken and index in self.waiting:
            result = self.waiting.pop(index)
            if not self.waiting:
                self.taken = None
            return result
        if index > 0:  # somebody else's input: by itself
            return fused_linears(taken, self.layers[index : index + 1])[0]
        results = fused_linears(taken, self.layers)
        self.waiting = dict(enumerate(results[1:], 1))
        self.taken = taken if self.waiting else None
        return results[0]


@dataclass(frozen=True, slots=True)
class _Fused:
    """A layer's forward in place of PEFT's, which still does what is out of the ordinary."""

    group: _Group
    index: int

    def __call__(self, taken: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.group.layers[self.index]
        ordinary = not (args or kwargs or layer.disable_adapters or layer.merged)
        if ordinary and not torch.is_autocast_enabled(taken.device.type):
            return self.group.result(self.index, taken)
        return Linear.forward(layer, taken, *args, **kwargs)


def fused_linears(taken: Tensor, layers: Sequence[Linear]) -> tuple[Tensor, ...]:
    """The results of LoRA layers of one input: x W' + bias + scale (x A') B' for each."""
    names = [layer.active_adapters[0] for layer in layers]
    pairs = list(zip(layers, names, strict=True))
    return _FusedLinears.apply(
        taken,
        [layer.scaling[name] for layer, name in pairs],
        *(layer.base_layer.weight for layer in layers),
        *(layer.base_layer.bias for layer in layers),
        *(layer.lora_A[name].weight for layer, name in pairs),
        *(layer.lora_B[name].weight for layer, name in pairs),
    )


class _FusedLinears(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, taken: Tensor, scales: list[float], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        weights, biases, downs, ups = _quarters(tensors)
        dtype = weights[0].dtype
        flat = taken.reshape(-1, taken.shape[-1]).to(dtype)
        down = torch.cat([a.to(dtype) for a in downs])
        low = flat @ down.T
        ranks = [len(a) for a in downs]
        results = []
        for weight, bias, up, part, scale in zip(
            weights, biases, ups, torch.split(low, ranks, dim=1), scales, strict=True
        ):
            # The thin product first: the large one then adds to it on its way.
            result = (part * scale) @ up.to(dtype).T
            if bias is not None:
                result += bias
            results.append(result.addmm_(flat, weight.T).view(*taken.shape[:-1], -1))
        ctx.save_for_backward(flat, low, down, *weights, *ups)
        ctx.scales, ctx.ranks, ctx.shape, ctx.dtype = scales, ranks, taken.shape, taken.dtype
        ctx.adapter_dtype = downs[0].dtype
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, low, down, *rest = ctx.saved_tensors
        count = len(ctx.scales)
        weights, ups = rest[:count], rest[count:]
        wanted = ctx.needs_input_grad[0]
        slopes = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        low_slopes, up_slopes = [], []
        for slope, up, part, scale in zip(
            slopes, ups, torch.split(low, ctx.ranks, dim=1), ctx.scales, strict=True
        ):
            low_slopes.append((up.to(slope.dtype).T @ slope.T).mul_(scale))
            up_slopes.append((part.T @ slope).mul_(scale).T.to(ctx.adapter_dtype))
        every = torch.cat(low_slopes)
        down_slopes = (every @ flat).to(ctx.adapter_dtype).split(ctx.ranks)
        given: Tensor | None = None
        if wanted:
            given = every.T @ down
            for slope, weight in zip(slopes, weights, strict=True):
                given.addmm_(slope, weight)
            given = given.view(ctx.shape).to(ctx.dtype)
        return (given, None, *[None] * (2 * count), *down_slopes, *up_slopes)


def _quarters(tensors: Sequence[Any]) -> list[Sequence[Any]]:
    size = len(tensors) // 4
    return [tensors[start : start + size] for start in range(0, 4 * size, size)]


def _sharing(model: Model) -> list[list[Linear]]:
    """The plain LoRA layers of `model`, those together that took the same tensor, by a trial."""
    calls: list[tuple[Linear, Tensor]] = []
    handles = [
        module.register_forward_pre_hook(lambda layer, inputs: calls.append((layer, inputs[0])))
        for module in model.modules()
        if type(module) is Linear and plain_lora(module)
    ]
    training = model.training
    try:
        with torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
            model.eval()(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    groups: list[list[Linear]] = []
    last: Tensor | None = None
    for layer, taken in calls:
        if taken is last:
            groups[-1].append(layer)
        else:
            groups.append([layer])
        last = taken
    # A layer that runs twice in a forward would find the other call's results.
    once = {layer for layer, _ in calls if sum(other is layer for other, _ in calls) == 1}
    return [group for group in groups if once.issuperset(group)]


def plain_lora(layer: Linear) -> bool:
    """One adapter, of Hu et al.'s formula, on an ordinary frozen linear layer."""
    base = layer.base_layer
    if type(base) is not torch.nn.Linear or any(p.requires_grad for p in base.parameters()):
        return False
    if len(layer.active_adapters) != 1 or layer.fan_in_fan_out:
        return False
    name = layer.active_adapters[0]
    without_dropout = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    return without_dropout and name not in layer.lora_variant and not layer.lora_bias[name]
