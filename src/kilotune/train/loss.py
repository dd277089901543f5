"""Cross-entropy at labelled positions, with logits computed there and nowhere else."""

import torch
from torch.nn.functional import cross_entropy

from kilotune.models.load import Model
from kilotune.train.batches import IGNORED, Batch, model_inputs


def labelled_logits(model: Model, batch: Batch, *, sliced: bool) -> torch.Tensor:
    """Logits of shape (B, K, vocabulary) at `batch["columns"]`.

    `sliced` says that the model takes `logits_to_keep`, and so never computes the others: with a
    vocabulary of 50,000 the output head is otherwise a large part of a step.
    """
    inputs = model_inputs(batch)
    columns = batch["columns"]
    if sliced:
        logits: torch.Tensor = model(**inputs, logits_to_keep=columns, use_cache=False).logits
        return logits
    whole: torch.Tensor = model(**inputs, use_cache=False).logits
    return whole[:, columns]


def labelled_loss(model: Model, batch: Batch, *, sliced: bool) -> torch.Tensor:
    """The *sum* of the cross-entropy over the labelled tokens of a batch, in float32.

    A sum, since the mean must be over all labelled tokens of an optimiser step, however it is
    cut into micro-batches and over processes.
    """
    logits = labelled_logits(model, batch, sliced=sliced)
    return cross_entropy(
        logits.flatten(0, 1).float(),
        batch["targets"].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def labelled_count(batch: Batch) -> torch.Tensor:
    """How many tokens of a batch are trained."""
    return (batch["targets"] != IGNORED).sum()
