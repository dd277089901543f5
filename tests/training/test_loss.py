import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import IGNORED, blank, collate
from kilotune.training.loss import LabelledLoss, head_losses
from tests.support.families import SOFT_CAPPED, tiny

PAD = 256


def renderings() -> list[Rendering]:
    """Unequal lengths, answers of unequal lengths, one with two answers."""
    spans = [(9, [(7, 9)]), (5, [(3, 5)]), (12, [(4, 6), (8, 12)]), (7, [(6, 7)])]
    made = []
    for number, (length, trained) in enumerate(spans):
        ids = tuple((11 * number + 7 * i) % 250 for i in range(length))
        mask = tuple(any(a <= i < b for a, b in trained) for i in range(length))
        made.append(Rendering(f"data:{number}", ids, mask, trained[-1][0]))
    return made


def perturbed(folder: Path) -> Any:
    """With B at its zero start, A has no gradient and errors could hide."""
    model = source_at(folder).model(torch.float32)
    part = Tunable(model, LoraSettings(learning_rate=1e-3), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in part.trained():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return part.model


def plain_loss(model: Any, batch: list[Rendering]) -> torch.Tensor:
    """Every example by itself, by the model's own loss with shifted labels."""
    total, count = torch.zeros(()), 0
    for rendering in batch:
        ids = torch.tensor([rendering.token_ids])
        labels = torch.where(torch.tensor([rendering.label_mask]), ids, IGNORED)
        number = int((labels != IGNORED).sum())
        total = total + model(input_ids=ids, labels=labels).loss * number
        count += number
    return total / count


def gradients(model: Any, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_targets_are_the_tokens_after_the_columns() -> None:
    batch = collate(renderings(), PAD)
    assert batch.input_ids.shape == (4, 12)
    assert batch.labelled_count() == sum(sum(r.label_mask) for r in renderings())
    for row, rendering in enumerate(renderings()):
        start = 12 - len(rendering.token_ids)
        targets = {
            int(column) + 1 - start: int(target)
            for column, target in zip(batch.columns, batch.targets[row], strict=True)
            if target != IGNORED
        }
        pairs = enumerate(zip(rendering.token_ids, rendering.label_mask, strict=True))
        assert targets == {place: token for place, (token, label) in pairs if label}


def test_positions_count_from_each_examples_first_token() -> None:
    batch = collate(renderings(), PAD)
    assert batch.position_ids[1].tolist() == [0] * 7 + [0, 1, 2, 3, 4]
    assert batch.attention_mask[1].tolist() == [0] * 7 + [1] * 5


def error(ours: torch.Tensor, expected: torch.Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


def test_labelled_loss_and_gradient_equal_the_models_own(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    batch = collate(renderings(), PAD)
    plain = plain_loss(model, renderings())
    ours = LabelledLoss(model).sum(model, batch) / batch.labelled_count()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    expected = gradients(model, plain)
    assert error(gradients(model, ours), expected) < 1e-5


def weighted(items: list[Rendering]) -> list[Rendering]:
    weights = (1.0, 0.25, 0.6, 0.9)
    return [replace(r, weight=w) for r, w in zip(items, weights, strict=True)]


def test_a_weight_is_what_each_token_of_an_example_counts(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    counts = [sum(r.label_mask) for r in renderings()]
    expected = torch.zeros(())
    for rendering, count in zip(weighted(renderings()), counts, strict=True):
        expected = expected + rendering.weight * count * plain_loss(model, [rendering])
    expected = expected / sum(counts)
    batch = collate(weighted(renderings()), PAD)
    assert batch.weights.shape == batch.targets.shape
    assert batch.labelled_count() == sum(counts)
    slopes = gradients(model, expected)
    for split in (True, False):
        loss = LabelledLoss(model)
        loss.split = split
        ours = loss.sum(model, batch) / batch.labelled_count()
        assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
        assert error(gradients(model, ours), slopes) < 1e-5
    assert collate(renderings(), PAD).weights is None


def test_a_model_that_changes_its_logits_keeps_them_and_its_loss(tiny_model: Path) -> None:
    model = tiny(SOFT_CAPPED).model
    loss = LabelledLoss(model)
    assert not loss.split
    batch = collate(renderings(), PAD)
    plain = plain_loss(model, renderings())
    ours = loss.sum(model, batch) / batch.labelled_count()
    assert error(gradients(model, ours), gradients(model, plain)) < 1e-5


def test_a_model_without_logits_to_keep_gives_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = perturbed(tiny_model)
    batch = collate(renderings(), PAD)
    expected = gradients(model, LabelledLoss(model).sum(model, batch))
    for split in (True, False):
        loss = LabelledLoss(model)
        loss.sliced, loss.split = False, split
        assert error(gradients(model, loss.sum(model, batch)), expected) < 1e-5


def test_micro_batches_sum_to_the_whole_batch(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    loss = LabelledLoss(model)
    whole = gradients(model, loss.sum(model, collate(renderings(), PAD)))
    parts = torch.stack(
        [
            gradients(model, loss.sum(model, collate(part, PAD)))
            for part in (renderings()[:1], renderings()[1:3], renderings()[3:])
        ]
    ).sum(dim=0)
    assert error(parts, whole) < 1e-5


def test_a_blank_adds_nothing(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    loss = LabelledLoss(model)
    alone = loss.sum(model, collate(renderings()[:2], PAD))
    blanks = loss.sum(model, collate([*renderings()[:2], blank(renderings()[2])], PAD))
    assert error(gradients(model, blanks), gradients(model, alone)) < 1e-6
    nothing = loss.sum(model, collate([blank(renderings()[2])], PAD))
    assert nothing.item() == 0
    assert gradients(model, nothing).abs().max() == 0


def test_only_labelled_logits_are_computed(tiny_model: Path, monkeypatch: Any) -> None:
    model = perturbed(tiny_model)
    seen = []
    monkeypatch.setattr(
        "kilotune.training.loss.head_losses",
        lambda hidden, *rest: seen.append(hidden.shape) or head_losses(hidden, *rest),
    )
    batch = collate(renderings(), PAD)
    LabelledLoss(model).sum(model, batch)
    assert seen == [(batch.labelled_count(), 32)]


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_chunks_give_the_loss_and_gradients_of_all_at_once(
    trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(*shape, generator=generator) for shape in ((23, 16), (50, 16), (50,))
    )
    targets = torch.randint(50, (23,), generator=generator)
    hidden.requires_grad_()
    weight.requires_grad_(trained)
    plain = cross_entropy(torch.nn.functional.linear(hidden, weight, bias), targets)
    leaves = [hidden, weight] if trained else [hidden]
    expected = torch.autograd.grad(plain, leaves)
    monkeypatch.setattr("kilotune.training.loss.LOGITS", 50 * 4)
    ours = head_losses(hidden, targets, weight, bias).mean()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    for got, wanted in zip(torch.autograd.grad(ours, leaves), expected, strict=True):
        assert error(got, wanted) < 1e-6


@pytest.mark.slow
def test_memory_does_not_grow_with_the_labelled_tokens() -> None:
    """1,500 tokens of a vocabulary of 150,000: their logits alone would take 900 MB."""
    code = """
import resource, torch
from kilotune.training.loss import head_losses
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
hidden = torch.randn(1500, 16, requires_grad=True)
weight = torch.randn(150_000, 16)
head_losses(hidden[:220], torch.arange(220), weight, None).sum().backward()
before = peak()
head_losses(hidden, torch.arange(1500), weight, None).sum().backward()
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6
