"""Cross-entropy at labelled positions, with logits computed there and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from kilotune.models.pretrained import Model, takes_argument
from kilotune.training.batches import IGNORED, Batch

# Logits held at once. A vocabulary of 150,000 then takes 220 labelled tokens at a time.
LOGITS = 1 << 25


class LabelledLoss:
    """The loss of a causal language model at the labelled positions of a batch.

    While it is computed, the output head gives each labelled token's loss in place of its logits,
    a few hundred tokens at a time: memory stays flat however long the answers are, and nothing
    around the model (data-parallel wrappers, adapters) need know. Models that change logits after
    their head (a soft cap, a scale) keep them, and get a plain cross-entropy.
    """

    def __init__(self, model: Model) -> None:
        self.head = model.get_output_embeddings()
        self.sliced = takes_argument(model, "logits_to_keep")
        self.split = logits_are_the_heads(model)

    def sum(self, model: Model, batch: Batch) -> Tensor:
        """The *sum* of the cross-entropy over the labelled tokens of a batch, in float32.

        Each counts by its weight, where the batch has `weights`. A sum, since the mean must be over
        all labelled tokens of an optimiser step, however it is cut into micro-batches and over
        processes. `model` may be a wrapper of the one given first.
        """
        inputs = batch.inputs()
        if self.sliced:
            inputs["logits_to_keep"] = batch.columns
        if self.split:
            with _head_gives_losses(self.head, batch, sliced=self.sliced):
                losses: Tensor = model(**inputs, use_cache=False).logits
                return losses.sum()
        logits = model(**inputs, use_cache=False).logits
        chosen = logits if self.sliced else logits[:, batch.columns]
        each = _losses(chosen.flatten(0, 1), batch.targets.flatten())
        return _weighted(each, batch, ...).sum()


def _weighted(losses: Tensor, batch: Batch, chosen: Tensor | EllipsisType) -> Tensor:
    """The losses of the `chosen` targets of a batch, (N,), times their weights."""
    return losses if batch.weights is None else losses * batch.weights[chosen].flatten()


def logits_are_the_heads(model: Model) -> bool:
    """Whether what the output head gives is what the model returns, tried on one token."""
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        return False
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    training = model.training
    try:
        with torch.no_grad():
            ids = torch.zeros(1, 1, dtype=torch.long, device=head.weight.device)
            logits = model.eval()(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
        model.train(training)
    return len(seen) == 1 and torch.equal(seen[0].float(), logits.float())


@contextmanager
def _head_gives_losses(head: torch.nn.Linear, batch: Batch, *, sliced: bool) -> Iterator[None]:
    targets = batch.targets

    def losses(hidden: Tensor) -> Tensor:
        chosen = hidden if sliced else hidden[:, batch.columns]
        labelled = targets != IGNORED
        each: Tensor = head_losses(chosen[labelled], targets[labelled], head.weight, head.bias)
        return _weighted(each, batch, labelled)[None, :, None]

    head.forward = losses  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del head.forward


def head_losses(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Cross-entropy of each of N tokens, (N,) in float32, from (N, width) hidden states.

    At most LOGITS logits exist at a time, in the backward pass too. With a frozen head their
    gradient is taken at once, and only its product with the head is kept (as in Hsu et al. 2024,
    "Liger Kernel"); with a trained head they are computed again.
    """
    size = max(1, LOGITS // weight.shape[0])
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if not trained:
        return _FrozenHead.apply(hidden, targets, weight, bias, size)
    parts = [
        checkpoint(_part_losses, h, t, weight, bias, use_reentrant=False)
        for h, t in zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    ]
    return torch.cat(parts)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, size: int
    ) -> Tensor:
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
            logsum = logits.logsumexp(dim=-1, keepdim=True)
            wanted = targets[part, None]
            losses[part] = (logsum - logits.gather(1, wanted)).squeeze(1)
            if slopes is not None:
                # Softmax minus one at the target.
                logits.sub_(logsum).exp_().scatter_add_(1, wanted, -torch.ones_like(logsum))
                slopes[part] = logits.to(weight.dtype) @ weight
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None].to(slopes.dtype), None, None, None, None)


def _part_losses(hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _losses(torch.nn.functional.linear(hidden, weight, bias), targets)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
