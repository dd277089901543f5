"""The passes of `row_kernels.c`, compiled when they are first wanted, where there is a compiler.

Compiling takes about a second, so that nothing is kept between runs: what is loaded was made from
this package's own source by this process. Without a compiler, or on another device, whoever asks
is told so and computes by torch.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
# Otherwise compilers choose vectors of half the width.
WIDE = ("-mprefer-vector-width=512",)
SECONDS = 60
LANES = 16  # as in the source: but for scores, rows are multiples of it
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class RowKernels:
    """The passes for numbers of one type. Tensors are contiguous unless it is said otherwise."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._passes: dict[str, Callable[..., None]] = {}
        for name, kinds in _ARGUMENTS.items():
            function = getattr(library, f"{name}_{TYPES[dtype]}")
            function.argtypes, function.restype = [_C[kind] for kind in kinds], None
            self._passes[name] = function

    def __call__(self, name: str, *arguments: Any) -> None:
        """Run the pass of that name; of a tensor it is given the address."""
        self._passes[name](*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


# The parameters of each pass: pointers, long integers, ints, floats, three strides.
_C: dict[str, Any] = {
    "p": ctypes.c_void_p,
    "l": ctypes.c_long,
    "i": ctypes.c_int,
    "f": ctypes.c_float,
    "s": ctypes.c_long * 3,
}
_ARGUMENTS = {
    "norm_forward": "pppp" + "ll" + "f",
    "norm_backward": "ppppp" + "ll",
    "rotate": "pppp" + "llll" + "ss" + "li",
    "gated_forward": "ppp" + "lll",
    "gated_backward": "ppppp" + "lll",
    "soften": "ppp" + "llll" + "if",
    "inner": "ppp" + "ll",
    "join": "pppppp" + "llllll" + "i",
    "slopes": "ppppp" + "llllll" + "if",
    "put": "ppp" + "lllll" + "i",
}


def strides_of(x: Tensor) -> Any:
    """The first three strides of `x`, as `rotate` takes them."""
    return _C["s"](*x.stride()[:3])


def kernels_for(x: Tensor, width: int = LANES) -> RowKernels | None:
    """The passes for numbers like those of `x` in rows of `width`; None if torch has to do it."""
    if x.device.type != "cpu" or x.dtype not in TYPES or width % LANES:
        return None
    return _kernels(x.dtype)


@cache
def _kernels(dtype: torch.dtype) -> RowKernels | None:
    library = _library()
    return RowKernels(library, dtype) if library else None


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled passes, or None where they cannot be had or are not what they should be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = _compiled(compiler, Path(folder))
    except (OSError, subprocess.SubprocessError):
        return None
    return library if _rounds(library) else None


def _compiled(compiler: str, folder: Path) -> ctypes.CDLL:
    """Compile and load. Raises OSError or SubprocessError where that is not possible.

    Linked without an OpenMP of its own: its threads are torch's, whose symbols are global. One
    that brings others is refused here, since two sets of threads would wait for each other.
    """
    made, library = folder / "rows.o", folder / "rows.so"
    wide = WIDE if os.uname().machine == "x86_64" else ()
    for command in (
        [compiler, *FLAGS, *wide, "-c", str(SOURCE), "-o", str(made)],
        [compiler, "-shared", str(made), "-o", str(library), "-lm"],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return ctypes.CDLL(str(library), mode=os.RTLD_NOW)


def _rounds(library: ctypes.CDLL) -> bool:
    """Whether the passes give in bfloat16 what they give in float32, rounded.

    Before a training both are compared with torch, but where memory allows in float32 alone.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 48, generator=generator).bfloat16()
    wide, narrow = (torch.empty_like(x[0], dtype=dtype) for dtype in TYPES)
    for dtype, out in zip(TYPES, (wide, narrow), strict=True):
        gate, linear = (part.contiguous() for part in x.to(dtype))
        RowKernels(library, dtype)("gated_forward", gate, linear, out, *gate.shape, gate.shape[1])
    expected = torch.nn.functional.silu(x[0].float()) * x[1].float()
    return torch.equal(wide.bfloat16(), narrow) and torch.allclose(wide, expected, atol=1e-6)
