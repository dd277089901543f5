"""How far two models are apart on the same answers, token by token."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from kilotune.generation.padding import right_padded
from kilotune.generation.score import logits_at
from kilotune.models.answering import answering
from kilotune.models.pretrained import Model
from kilotune.models.vision import forget_positions
from kilotune.progress import Progress

# Logits of one batch and one model, as float32 numbers: 256 MB.
LOGITS = 2**26


@dataclass(frozen=True, slots=True)
class Apart:
    """Means over an answer's `tokens`: the divergence of the tuned model's distribution from the
    base model's (Kullback and Leibler 1951, in nats), and both models' losses on the tokens.
    """

    tokens: int
    divergence: float
    base_loss: float
    tuned_loss: float


def apart(
    model: Model,
    as_base: Callable[[], AbstractContextManager[Model]],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    pad_id: int,
    progress: Progress,
) -> list[Apart]:
    """Compare `model` with the one inside `as_base()` on each answer (token ids) to its prompt.

    No answer may be empty.
    """
    found: list[Apart | None] = [None] * len(prompts)
    size = model.config.get_text_config().vocab_size
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    longest = max(map(len, answers)) + max(map(len, prompts)) - min(map(len, prompts))
    rows = max(1, LOGITS // (size * longest))
    with torch.inference_mode(), progress.bar("general prompts", len(prompts)) as bar:
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            asked, said = [prompts[i] for i in batch], [answers[i] for i in batch]
            with as_base() as base, answering(base):
                before = _distributions(base, asked, said, pad_id)
            with answering(model):
                after = _distributions(model, asked, said, pad_id)
            for i, ids, p, q in zip(batch, said, before, after, strict=True):
                found[i] = _apart(p, q, torch.tensor(ids, device=p.device))
            bar.advance(len(batch))
    return [one for one in found if one is not None]


def _distributions(
    model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad_id: int
) -> list[torch.Tensor]:
    """For each row log-probabilities of shape (tokens of the answer, vocabulary)."""
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    first = min(map(len, prompts)) - 1
    columns = torch.arange(first, max(map(len, rows)))
    forget_positions(model)
    logits = logits_at(model, columns, **right_padded(rows, pad_id), use_cache=False)
    starts = [len(prompt) - 1 - first for prompt in prompts]
    return [
        logits[row, start : start + len(answer)].log_softmax(dim=-1)
        for row, (start, answer) in enumerate(zip(starts, answers, strict=True))
    ]


def _apart(base: torch.Tensor, tuned: torch.Tensor, ids: torch.Tensor) -> Apart:
    each = (base.exp() * (base - tuned)).sum(dim=-1)
    losses = [float(-p.gather(1, ids[:, None]).mean()) for p in (base, tuned)]
    return Apart(len(ids), float(each.mean().clamp(min=0)), *losses)
