"""Whether training may start from stored states: they and the step are held against plain ones."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kilotune.models.freeze import Tunable
from kilotune.models.lower import bypassed, entering
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import States, collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing_check import compare
from kilotune.training.state_computer import StateComputer
from kilotune.training.tuning_result import Difference

# How far a fast path may be from the plain one; bfloat16 keeps 8 bits, and rounds otherwise in
# packs. In many layers that adds up: states that differ by more must be as near to those in
# float32 as the plain ones are, which two independent roundings are within this factor.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
ROUNDING = 1.25


def takes_packs(computer: StateComputer, texts: Sequence[Rendering]) -> bool:
    """Whether packs give `texts` the states that padded batches give them."""
    padded = computer.padded(computer.probe_span, texts)
    try:
        packed = computer.packed(computer.probe_span, texts)
    except Exception:  # what a foreign model's code makes of it, none can foresee
        return False
    expected = torch.cat([row[-len(own) :] for row, own in zip(padded, packed, strict=True)])
    return not _fault(computer, texts, computer.probe_span, torch.cat(packed), expected)


def check(
    tunable: Tunable, computer: StateComputer, texts: Sequence[Rendering], states: States
) -> tuple[float, Difference] | str:
    """Differences of the stored `states`, and of loss and gradient from the first trained layer on.

    The loss starts from states of the same batch, where nothing but a mistake can differ;
    the stored ones come from packs or batches of other shapes, which round otherwise. Returns what
    is wrong, if a difference is beyond TOLERANCE, or ROUNDING.
    """
    model, below = computer.model, computer.below
    plain = collate(texts, computer.pad_id, eyes=computer.eyes).to(model.device)
    caught: list[Tensor] = []

    def from_the_start() -> Tensor:
        with entering(model, below) as entered, computer.precision():
            mean = loss.sum(model, plain) / plain.labelled_count()
        caught.extend(entered)
        return mean

    def from_the_layer() -> Tensor:
        with bypassed(model, below), computer.precision():
            summed = loss.sum(model, replace(plain, hidden_states=caught[0]))
            return summed / plain.labelled_count()

    try:
        with bypassed(model, below):  # it tries the output head
            loss = LabelledLoss(model)
        restart = compare(tunable, from_the_start, from_the_layer)
    except Exception as error:  # as in `takes_packs`
        return f"the model cannot start at layer {below}: {error}"
    stored = torch.cat([states(rendering) for rendering in texts])
    tolerance = _tolerance(computer, stored)
    for name, value in (("the loss", restart.loss), ("the gradient", restart.gradient)):
        if not value <= tolerance:
            return f"{name} would differ by {value:.1e} (at most {tolerance:g})"
    fresh = caught[0][plain.attention_mask.bool()].cpu()
    if fault := _fault(computer, texts, range(below), stored, fresh):
        return f"stored states {fault}"
    return _relative(stored, fresh), restart


def _fault(
    computer: StateComputer, texts: Sequence[Rendering], span: range, found: Tensor, plain: Tensor
) -> str:
    """What is wrong with states of `texts` that leave `span`, if anything is.

    Both are (tokens, width), `plain` by the plain forward.
    """
    found, plain = found.cpu(), plain.cpu()
    difference, tolerance = _relative(found, plain), _tolerance(computer, found)
    if difference <= tolerance:
        return ""
    if not _coarse(computer, found):
        return f"would differ by {difference:.1e} (at most {tolerance:g})"
    exact = computer.exact(span, texts)
    ours, theirs = _relative(found, exact), _relative(plain, exact)
    if ours <= ROUNDING * theirs:
        return ""
    return (
        f"would differ by {difference:.1e}, and by {ours:.1e} from those in float32 (plain "
        f"ones by {theirs:.1e})"
    )


def _coarse(computer: StateComputer, states: Tensor) -> bool:
    return states.dtype != torch.float32 or computer.autocast is not None


def _tolerance(computer: StateComputer, states: Tensor) -> float:
    return TOLERANCE["bfloat16" if _coarse(computer, states) else "float32"]


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
