"""Norms, rotary positions and gated units in one pass over memory each, forward and backward.

transformers writes them as five to ten operations of torch, each of which reads and writes whole
activations. Whether a module does what a pass does is found by trying it, not by its name; one
that does something else, that is trained itself, or that runs where there are no passes, is left
as it is.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from kilotune.models.pretrained import Model
from kilotune.models.row_kernels import RowKernels, kernels_for, strides_of

# How far a pass may be from a module of the same formula, relative, in float32.
TOLERANCE = 1e-5
ROTARY = "apply_rotary_pos_emb"


@contextmanager
def fused_layers(model: Model) -> Iterator[None]:
    """Let what `model` has of these run in one pass inside a `with`; all else is left alone."""
    with ExitStack() as stack:
        for module in model.modules():
            if fused := _norm(module) or _gated(module):
                module.forward = fused
                stack.callback(module.__dict__.pop, "forward")
        for home in {type(module).__module__ for module in model.modules()}:
            plain = getattr(sys.modules.get(home), ROTARY, None)
            if plain is not None and _rotates(plain):
                setattr(sys.modules[home], ROTARY, _Rotary(plain))
                stack.callback(setattr, sys.modules[home], ROTARY, plain)
        yield


def _ready(width: int, *tensors: Tensor) -> RowKernels | None:
    """The passes for rows of `width`, if all are of one type that is computed in as it stands."""
    first = tensors[0]
    alike = all(t.dtype == first.dtype and t.device == first.device for t in tensors)
    if not alike or torch.is_autocast_enabled(first.device.type):
        return None
    return kernels_for(first, width)


def _near(ours: Tensor, plain: Tensor) -> bool:
    return ours.shape == plain.shape and bool((ours - plain).norm() <= TOLERANCE * plain.norm())


def _tried(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator)


# Norms


@dataclass(frozen=True, slots=True)
class _FusedNorm:
    """Root mean square norm (Zhang and Sennrich 2019) in the place of a module's forward."""

    module: Any
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        gain = self.module.weight
        kernels = _ready(len(gain), x, gain)
        if kernels is None:
            return type(self.module).forward(self.module, x)
        return _Norm.apply(x, gain, self.epsilon, kernels)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float, kernels: RowKernels) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        width = x.shape[-1]
        rows = x.numel() // width
        inverse = x.new_empty(rows, dtype=torch.float32)
        kernels("norm_forward", x, gain, y, inverse, rows, width, epsilon)
        ctx.save_for_backward(x, gain, inverse)
        ctx.kernels = kernels
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        given = torch.empty_like(x)
        width = x.shape[-1]
        slope = slope.contiguous()
        ctx.kernels("norm_backward", x, gain, inverse, slope, given, len(inverse), width)
        return given, None, None, None


def _norm(module: Any) -> _FusedNorm | None:
    """For a frozen norm by the root mean square of its input, times a weight."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    names = [name for name, _ in module.named_parameters()]
    if names != ["weight"] or not isinstance(epsilon, float) or "forward" in vars(module):
        return None
    gain = module.weight
    if gain.requires_grad or gain.ndim != 1 or kernels_for(gain, len(gain)) is None:
        return None
    fused = _FusedNorm(module, epsilon)
    return fused if _agrees(fused, _tried((3, 5, len(gain))).to(gain.dtype)) else None


def _agrees(fused: _FusedNorm, x: Tensor) -> bool:
    """By the pass for float32, whatever the type of the weight."""
    module = fused.module
    try:
        with torch.no_grad():
            wide = module.weight.float()
            kernels = kernels_for(wide, len(wide))
            assert kernels is not None
            ours = _Norm.apply(x.float(), wide, fused.epsilon, kernels)
            plain = torch.func.functional_call(module, {"weight": wide}, (x.float(),))
    except (TypeError, ValueError, RuntimeError, AttributeError):  # foreign code
        return False
    return _near(ours, plain)


# Gated units


@dataclass(frozen=True, slots=True)
class _FusedGated:
    """Down(silu(gate(x)) * up(x)) (Shazeer 2020) in the place of a module's forward."""

    module: Any

    def __call__(self, x: Tensor) -> Tensor:
        gate, linear = self.module.gate_proj(x), self.module.up_proj(x)
        kernels = _ready(gate.shape[-1], gate, linear)
        if kernels is None:
            return self.module.down_proj(self.module.act_fn(gate) * linear)
        return self.module.down_proj(_Gated.apply(gate, linear, kernels))


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, linear: Tensor, kernels: RowKernels) -> Tensor:
        shape = gate.shape
        gate, linear = _in_rows(gate, linear)
        y = gate.new_empty(shape)
        kernels("gated_forward", gate, linear, y, *gate.shape, gate.stride(0))
        ctx.save_for_backward(gate, linear)
        ctx.kernels, ctx.shape = kernels, shape
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        gate, linear = ctx.saved_tensors
        to_gate, to_linear = (slope.new_empty(ctx.shape) for _ in range(2))
        given = gate, linear, slope.contiguous()
        ctx.kernels("gated_backward", *given, to_gate, to_linear, *gate.shape, gate.stride(0))
        return to_gate, to_linear, None


def _in_rows(gate: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (rows, width), with rows as far apart in one as in the other."""
    parts = [x.reshape(-1, x.shape[-1]) for x in (gate, linear)]
    if parts[0].stride() == parts[1].stride() and parts[0].stride(1) == 1:
        return parts[0], parts[1]
    return parts[0].contiguous(), parts[1].contiguous()


def _gated(module: Any) -> _FusedGated | None:
    """For a module of three linear layers that computes down(silu(gate(x)) * up(x))."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, Module) for part in parts) or "forward" in vars(module):
        return None
    x = _tried((7, 11))
    # The module's own forward, on layers whose results are known.
    stub = SimpleNamespace(
        gate_proj=lambda given: given + 1,
        up_proj=lambda given: 2 * given - 1,
        down_proj=lambda given: 3 * given,
        act_fn=getattr(module, "act_fn", None),
    )
    try:
        found = type(module).forward(stub, x)
    except (TypeError, ValueError, RuntimeError, AttributeError):  # it does something else
        return None
    expected = 3 * torch.nn.functional.silu(x + 1) * (2 * x - 1)
    return _FusedGated(module) if _near(expected, found) else None


# Rotary positions


@dataclass(frozen=True, slots=True)
class _Rotary:
    """In the place of a modelling file's function; does what is out of the ordinary by it."""

    plain: Callable[..., tuple[Tensor, Tensor]]

    def __call__(
        self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        kernels = _ready(q.shape[-1] // 2, q, k, cos, sin)
        if args or kwargs or kernels is None or not all(_fits(x, cos) for x in (q, k)):
            return self.plain(q, k, cos, sin, *args, **kwargs)
        cos, sin = cos.contiguous(), sin.contiguous()
        return _Rotate.apply(q, cos, sin, kernels), _Rotate.apply(k, cos, sin, kernels)


def _fits(x: Tensor, angles: Tensor) -> bool:
    """Whether each head of x, (B, heads, T, size), is turned whole, by angles (B or 1, T, size)."""
    if x.ndim != 4 or angles.ndim != 3 or x.stride(3) != 1 or x.shape[3] % 2:
        return False
    return angles.shape[0] in (1, x.shape[0]) and angles.shape[1:] == x.shape[2:]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, kernels: RowKernels) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.kernels = kernels
        # Heads outside, as attention takes them.
        y = x.new_empty(x.shape)
        _turn(kernels, x, cos, sin, y, back=False)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        if slope.stride(3) != 1:
            slope = slope.contiguous()
        batch, heads, tokens, size = slope.shape
        # Tokens outside, as the linear layer gave them.
        given = slope.new_empty(batch, tokens, heads, size).transpose(1, 2)
        _turn(ctx.kernels, slope, cos, sin, given, back=True)
        return given, None, None, None


def _turn(
    kernels: RowKernels, x: Tensor, cos: Tensor, sin: Tensor, y: Tensor, *, back: bool
) -> None:
    kernels("rotate", x, cos, sin, y, *x.shape, strides_of(x), strides_of(y), len(cos), int(back))


def _rotates(plain: Callable[..., Any]) -> bool:
    """Whether a function of queries, keys, cosines and sines turns halves against each other."""
    q, k = _tried((2, 3, 5, 32)), _tried((2, 1, 5, 32))
    cos, sin = _tried((1, 5, 32)), _tried((1, 5, 32)).flip(2)
    try:
        expected = plain(q, k, cos, sin)
        ours = _Rotary(plain)(q, k, cos, sin)
        return all(_near(a, b) for a, b in zip(ours, expected, strict=True))
    except (TypeError, ValueError, RuntimeError, AttributeError):  # of other parameters
        return False
