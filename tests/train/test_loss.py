from pathlib import Path
from typing import Any

import pytest
import torch

from kilotune.models.freeze import Tunable
from kilotune.models.load import load_model
from kilotune.recipe.schema import LoraSettings, ModelSettings
from kilotune.render.labels import Rendering
from kilotune.train.batches import IGNORED, collate
from kilotune.train.loss import labelled_count, labelled_loss

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
    model = load_model(str(folder), ModelSettings(), torch.float32)
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
    assert batch["input_ids"].shape == (4, 12)
    assert labelled_count(batch) == sum(sum(r.label_mask) for r in renderings())
    for row, rendering in enumerate(renderings()):
        start = 12 - len(rendering.token_ids)
        targets = {
            int(column) + 1 - start: int(target)
            for column, target in zip(batch["columns"], batch["targets"][row], strict=True)
            if target != IGNORED
        }
        pairs = enumerate(zip(rendering.token_ids, rendering.label_mask, strict=True))
        assert targets == {place: token for place, (token, label) in pairs if label}


def test_positions_count_from_each_examples_first_token() -> None:
    batch = collate(renderings(), PAD)
    assert batch["position_ids"][1].tolist() == [0] * 7 + [0, 1, 2, 3, 4]
    assert batch["attention_mask"][1].tolist() == [0] * 7 + [1] * 5


@pytest.mark.parametrize("sliced", [True, False], ids=["logits_to_keep", "all logits"])
def test_labelled_loss_and_gradient_equal_the_models_own(tiny_model: Path, sliced: bool) -> None:
    model = perturbed(tiny_model)
    batch = collate(renderings(), PAD)
    plain = plain_loss(model, renderings())
    ours = labelled_loss(model, batch, sliced=sliced) / labelled_count(batch)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-5)
    expected = gradients(model, plain)
    error = (gradients(model, ours) - expected).norm() / expected.norm()
    assert error < 1e-5


def test_micro_batches_sum_to_the_whole_batch(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    count = labelled_count(collate(renderings(), PAD))
    whole = gradients(model, labelled_loss(model, collate(renderings(), PAD), sliced=True) / count)
    parts = torch.stack(
        [
            gradients(model, labelled_loss(model, collate(part, PAD), sliced=True) / count)
            for part in (renderings()[:1], renderings()[1:3], renderings()[3:])
        ]
    ).sum(dim=0)
    assert (parts - whole).norm() / whole.norm() < 1e-5


def test_only_labelled_logits_are_computed(tiny_model: Path) -> None:
    model = perturbed(tiny_model)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    batch = collate(renderings(), PAD)
    labelled_loss(model, batch, sliced=True)
    assert seen[0][:2] == batch["targets"].shape
    assert seen[0][1] < batch["input_ids"].shape[1]
