"""How fast this machine and others compute."""

import time
from dataclasses import dataclass

import torch

from kilotune.models.size import ModelSize


@dataclass(frozen=True, slots=True)
class Speed:
    """Arithmetic a second: in products of matrices, and number by number."""

    products: float
    elements: float


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A card by its published figures: bytes, dense bfloat16 FLOP/s, bytes/s."""

    name: str
    memory: float
    peak: float
    bandwidth: float

    def speed(self) -> Speed:
        """Half the published peak; an elementwise product moves three numbers of two bytes."""
        return Speed(self.peak / 2, self.bandwidth / 6)


ACCELERATORS = (
    Accelerator("24 GB (RTX 4090)", 24e9, 165e12, 1.0e12),
    Accelerator("48 GB (L40S)", 48e9, 362e12, 0.86e12),
    Accelerator("80 GB (A100)", 80e9, 312e12, 2.0e12),
)


def measure_speed(
    size: ModelSize, dtype: torch.dtype, device: torch.device, seconds: float = 1.0
) -> Speed:
    """The rate of `device` in the products of one layer of the model, and number by number.

    `seconds` for each of the two, after a pass that warms up.
    """
    rows, wait = 512, getattr(torch, device.type).synchronize
    done, spent = 0, 0.0
    while spent < seconds:
        for linear in size.linears:
            x = torch.ones(rows, linear.inputs, dtype=dtype, device=device)
            weight = torch.ones(linear.outputs, linear.inputs, dtype=dtype, device=device)
            torch.nn.functional.linear(x[:8], weight)
            wait()
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            wait()
            spent += time.perf_counter() - start
            done += 2 * rows * weight.numel()
    a = torch.ones(rows, size.inner, dtype=dtype, device=device)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds / 2:
        _ = a * a
        wait()
        count += a.numel()
    return Speed(done / spent, count / elapsed)
