import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from kilotune.models import row_kernels
from kilotune.models.row_kernels import LANES, TYPES, kernels_for, strides_of

NUMBERS = torch.zeros(1)
pytestmark = pytest.mark.skipif(
    kernels_for(NUMBERS) is None, reason="there is no compiler whose threads are torch's"
)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Such as bfloat16 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).bfloat16().float()


class Kept(torch.Tensor):
    """Numbers that passes keep in float32, whatever type they are for."""


def run(name: str, dtype: torch.dtype, *arguments: Any) -> list[Tensor]:
    """The tensors of numbers after a pass for `dtype`."""
    given = [
        a.to(dtype, copy=True, memory_format=torch.contiguous_format)
        if isinstance(a, Tensor) and a.is_floating_point() and not isinstance(a, Kept)
        else a
        for a in arguments
    ]
    kernels = kernels_for(torch.zeros(1, dtype=dtype))
    assert kernels is not None
    kernels(name, *given)
    return [a for a in given if isinstance(a, Tensor) and a.is_floating_point()]


def kept(*shape: int, seed: int = 0) -> Tensor:
    """Positive ones."""
    return numbers(*shape, seed=seed).abs().add(1).as_subclass(Kept)


# Two heads of two groups, eight tokens in stretches of five and, padded, three.
TOKENS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7, 7])
SHAPE = HEADS, COUNT, LENGTH, GROUPS = 2, 2, 5, 2
EVERY, BATCH, ROWS = 8, HEADS * COUNT, LENGTH * GROUPS


def calls() -> dict[str, tuple[Any, ...]]:
    """Arguments for each pass; rows are of 48, 32 or 16 numbers, scores of 5."""
    x, gain, slope = numbers(3, 48), numbers(48, seed=1), numbers(3, 48, seed=2)
    scores, part = numbers(BATCH, ROWS, LENGTH, seed=3), numbers(BATCH, ROWS, 16, seed=4)
    tops, totals = kept(BATCH, ROWS, seed=7), kept(BATCH, ROWS, seed=8)
    logsum, off = kept(HEADS, EVERY, GROUPS, seed=5), kept(HEADS, EVERY, GROUPS, seed=6)
    turned = numbers(2, 3, 5, 32)
    angles, strides = (numbers(1, 5, 32, seed=9), numbers(1, 5, 32, seed=10)), strides_of(turned)
    rotate = turned, *angles, turned * 0, 2, 3, 5, 32, strides, strides, 1
    return {
        "norm_forward": (x, gain, x * 0, kept(3), 3, 48, 1e-5),
        "norm_backward": (x, gain, kept(3), slope, x * 0, 3, 48),
        "rotate": (*rotate, 0),
        "rotate back": (*rotate, 1),
        "gated_forward": (x, slope, x * 0, 3, 48, 48),
        "gated_backward": (x, slope, numbers(3, 48, seed=3), x * 0, x * 0, 3, 48, 48),
        "soften": (scores, tops, totals, BATCH, ROWS, LENGTH, GROUPS, 1, 0.3),
        "inner": (x, slope, kept(3), 3, 48),
        "join": (part, tops, totals, TOKENS, kept(2, 8, 2, 16), logsum, *SHAPE, 16, EVERY, 0),
        "slopes": (scores, scores.flip(0), TOKENS, logsum, off, *SHAPE, LENGTH, EVERY, 1, 0.3),
        "put": (part, TOKENS, kept(2, 8, 32), HEADS, COUNT, LENGTH, 32, EVERY, 0),
    }


@pytest.mark.parametrize("name", calls())
def test_each_pass_gives_in_bfloat16_what_it_gives_in_float32_rounded(name: str) -> None:
    wide, narrow = (run(name.removesuffix(" back"), dtype, *calls()[name]) for dtype in TYPES)
    for exact, rounded in zip(wide, narrow, strict=True):
        assert torch.equal(exact.to(rounded.dtype), rounded)


@pytest.mark.parametrize("width", [1, 7, LANES - 1, LANES, LANES + 1, 3 * LANES, 61])
@pytest.mark.parametrize("causal", [0, 1])
def test_softened_scores_are_those_of_softmax_for_any_number_of_columns(
    width: int, causal: int
) -> None:
    scores = 4 * numbers(3, width, width)
    weights, tops, totals = run(
        "soften", torch.float32, scores, torch.zeros(3, width), torch.zeros(3, width), 3, width,
        width, 1, causal, 0.5,
    )  # fmt: skip
    barred = torch.full((width, width), float("-inf")).triu(1) if causal else 0
    expected = torch.softmax(scores * 0.5 + barred, dim=-1)
    assert torch.allclose(weights / totals[..., None], expected, atol=1e-6)
    assert torch.allclose(tops, (scores * 0.5 + barred).amax(-1))


def test_what_is_no_number_stays_so_and_large_ones_do_not_overflow() -> None:
    x, one = torch.full((1, LANES), 200.0), torch.ones(1, LANES)
    x[0, 3], x[0, 4] = float("nan"), -200.0
    _, _, y = run("gated_forward", torch.float32, x, one, one, 1, LANES, LANES)
    assert y[0, 3].isnan()
    assert y[0, 4].abs() < 1e-30
    assert torch.equal(y[0, 5:], x[0, 5:])


def test_threads_change_nothing() -> None:
    x, gain = numbers(700, 576), numbers(576, seed=1)
    arguments = (x, gain, x * 0, x[:, 0] * 0, 700, 576, 1e-5)
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(run("norm_forward", torch.float32, *arguments))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


@pytest.fixture
def afresh() -> Iterator[None]:
    """As in a new process, before and after."""
    for _ in range(2):
        row_kernels._library.cache_clear()
        row_kernels._kernels.cache_clear()
        if not _:
            yield


@pytest.mark.usefixtures("afresh")
def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert kernels_for(NUMBERS) is None


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("error", [OSError("noexec"), subprocess.CalledProcessError(1, "cc")])
def test_what_cannot_be_compiled_or_loaded_is_left_to_torch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(row_kernels, "_compiled", failing)
    assert kernels_for(NUMBERS) is None


@pytest.mark.usefixtures("afresh")
def test_passes_that_round_otherwise_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # A library whose bfloat16 is that of another function.
    made = row_kernels._compiled

    class Wrong:
        def __init__(self, *arguments: Any) -> None:
            self.library = made(*arguments)

        def __getattr__(self, name: str) -> Any:
            wrong = name == "gated_forward_bfloat16"
            return getattr(self.library, "inner_bfloat16" if wrong else name)

    monkeypatch.setattr(row_kernels, "_compiled", Wrong)
    assert kernels_for(NUMBERS) is None


def test_other_types_and_rows_that_do_not_fit_are_left_to_torch() -> None:
    assert kernels_for(NUMBERS.half()) is None
    assert kernels_for(NUMBERS, 24) is None
    assert kernels_for(NUMBERS, 32) is not None
