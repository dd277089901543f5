"""Two models on the same answers, against the definition and one row at a time."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.generation import divergence
from kilotune.generation.divergence import apart
from kilotune.models.source import source_at
from kilotune.progress import Silent

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [3, 1]]
ANSWERS = [[20, 21], [30], [40, 41, 42, 43]]


@pytest.fixture(scope="module")
def models(tiny_model: Path) -> tuple[Any, Any]:
    pair = [source_at(tiny_model).model(torch.float32) for _ in range(2)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in pair[1].parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return pair[0], pair[1]


def compared(base: Any, tuned: Any) -> list[divergence.Apart]:
    @contextmanager
    def as_base() -> Any:
        yield base

    return apart(tuned, as_base, PROMPTS, ANSWERS, pad_id=0, progress=Silent())


def test_divergence_and_losses_are_those_of_the_definition(models: tuple[Any, Any]) -> None:
    for row, prompt, answer in zip(compared(*models), PROMPTS, ANSWERS, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        p, q = (model(ids).logits[0, places].double().log_softmax(-1) for model in models)
        each = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        assert row.tokens == len(answer)
        assert row.divergence == pytest.approx(float(each.mean()), rel=1e-3)
        assert row.divergence > 0.001
        losses = [float(-x[range(len(answer)), answer].mean()) for x in (p, q)]
        assert (row.base_loss, row.tuned_loss) == pytest.approx(tuple(losses), rel=1e-4)


def test_a_model_is_not_apart_from_itself(models: tuple[Any, Any]) -> None:
    base, _ = models
    for row in compared(base, base):
        assert row.divergence == pytest.approx(0, abs=1e-6)
        assert row.base_loss == row.tuned_loss


def test_small_batches_give_the_same(
    models: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compared(*models)
    monkeypatch.setattr(divergence, "LOGITS", 1)
    for one, other in zip(compared(*models), whole, strict=True):
        assert one.divergence == pytest.approx(other.divergence, rel=1e-3)
