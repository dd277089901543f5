import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from kilotune.models.attention import packing_attention
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import Batch, collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import lay_out, pack, shared_length, sight
from tests.support.families import FAMILIES, SIZES, perturb, tiny

PAD = 256
TOKENS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=60), min_size=1, max_size=7)


def tokens(rng: random.Random, count: int, vocabulary: int = 250) -> list[int]:
    return [rng.randrange(vocabulary) for _ in range(count)]


def conversations(vocabulary: int = 250) -> list[Rendering]:
    """One system message, two instructions below it, a repeated example, one that others continue,
    one with two answers, and answers of several tokens."""
    rng = random.Random(0)
    system = tokens(rng, 40, vocabulary)
    instructions = [tokens(rng, 25, vocabulary), tokens(rng, 30, vocabulary), []]
    made = []
    for number in range(9):
        ids = system + instructions[number % 3] + tokens(rng, 5 + 3 * number, vocabulary)
        mask = [False] * (len(ids) - 3) + [True] * 3
        if number == 4:
            mask[60:63] = [True] * 3
        made.append(Rendering(f"data:{number}", tuple(ids), tuple(mask), len(ids) - 3))
    made.append(made[0])
    ids = system + instructions[0]
    made.append(Rendering("data:short", tuple(ids), (False,) * 60 + (True,) * 5, 60))
    return made


def loss_and_gradient(tunable: Tunable, batch: Batch) -> tuple[float, torch.Tensor]:
    model = tunable.model
    loss = LabelledLoss(model).sum(model, batch) / batch.labelled_count()
    slopes = torch.autograd.grad(loss, [parameter for _, parameter in tunable.trained()])
    return float(loss.detach()), torch.cat([slope.flatten() for slope in slopes])


def errors(tunable: Tunable, renderings: list[Rendering]) -> tuple[float, float]:
    """Of loss and gradient, packed against padded, relative."""
    plain, expected = loss_and_gradient(tunable, collate(renderings, PAD))
    with packing_attention(tunable.model):
        packed, gradient = loss_and_gradient(tunable, pack(renderings))
    return abs(packed / plain - 1), float((gradient - expected).norm() / expected.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_loss_and_gradient_equal_padded(family: str) -> None:
    loss, gradient = errors(tiny(FAMILIES[family]), conversations())
    assert loss < 1e-5
    assert gradient < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_packs_are_exact_without_compiled_passes(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kilotune.models.row_kernels._kernels", lambda dtype: None)
    assert max(errors(tiny(FAMILIES[family]), conversations())) < 1e-5


@pytest.mark.parametrize("size", [8, 16, 24])
def test_packs_are_exact_for_heads_of_any_size(size: int) -> None:
    assert max(errors(tiny(LlamaConfig(**{**SIZES, "head_dim": size})), conversations())) < 1e-5


def test_nothing_shared_packs_as_well() -> None:
    alone = [conversations()[index] for index in (0, 1, 2)]
    alone = [
        Rendering(r.example_id, (250 + n, *r.token_ids), (False, *r.label_mask), r.prompt_length)
        for n, r in enumerate(alone)
    ]
    batch = pack(alone)
    assert batch.input_ids.shape[1] == sum(len(r.token_ids) for r in alone)
    assert batch.inputs().keys() == {"input_ids", "attention_mask", "position_ids", "pack"}
    assert max(errors(tiny(FAMILIES["llama"]), alone)) < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_packed_loss_and_gradient_equal_padded_with_weights(family: str) -> None:
    tunable, plain = tiny(FAMILIES[family]), conversations()
    weights = [(1.0, 0.3, 0.85)[number % 3] for number in range(len(plain))]
    weighted = [replace(r, weight=w) for r, w in zip(plain, weights, strict=True)]
    assert max(errors(tunable, weighted)) < 1e-5
    with packing_attention(tunable.model):
        loss, slopes = loss_and_gradient(tunable, pack(weighted))
        whole, others = loss_and_gradient(tunable, pack(plain))
    assert loss < 0.95 * whole
    assert float((slopes - others).norm() / others.norm()) > 0.05


def test_long_examples_are_exact_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kilotune.training.packing.STRETCH", 16)
    monkeypatch.setattr("kilotune.models.attention.SCORES", 1000)
    assert max(errors(tiny(FAMILIES["qwen2"]), conversations())) < 1e-5


@pytest.mark.slow
def test_packed_loss_and_gradient_equal_padded_for_the_real_model(smollm2: Path) -> None:
    model = source_at(smollm2).model(torch.float32)
    tunable = Tunable(model, LoraSettings(learning_rate=1e-3), seed=0)
    perturb(tunable, 0.02)
    loss, gradient = errors(tunable, conversations(vocabulary=49_000))
    assert loss < 1e-5
    assert gradient < 1e-5


def test_every_shared_beginning_stands_once() -> None:
    batch = pack(conversations())
    own = sum(5 + 3 * number for number in range(9))
    assert batch.input_ids.shape == (1, 40 + 25 + 30 + own)
    assert batch.labelled_count() == sum(sum(r.label_mask) for r in conversations())


def test_an_end_of_a_beginning_may_predict_several_tokens() -> None:
    head = tuple(range(20))
    pair = [Rendering(str(t), (*head, t), (False,) * 20 + (True,), 20) for t in (100, 200)]
    batch = pack(pair)
    assert batch.input_ids.tolist() == [[*head, 100, 200]]
    assert batch.columns.tolist() == [19, 19]
    assert batch.targets.tolist() == [[100, 200]]
    assert max(errors(tiny(FAMILIES["llama"]), pair)) < 1e-5


@given(TOKENS)
def test_every_token_sees_its_own_example_up_to_itself_and_nothing_else(
    sequences: list[list[int]],
) -> None:
    layout = lay_out(sequences)
    pack = sight(layout, max(map(len, sequences)))
    size = len(layout.source)
    seen: list[set[int]] = [set() for _ in range(size)]
    for block in pack.blocks:
        rows = block.gather.view(block.count, block.length).tolist()
        for place, token in zip(block.places.tolist(), block.tokens.tolist(), strict=True):
            row = rows[place // block.length]
            assert row[place % block.length] == token
            seen[token] |= set(row[: place % block.length + 1])
    for low, high, start, stop in pack.reaches:
        for token in range(low, high):
            assert not seen[token] & set(range(start, stop))
            seen[token] |= set(range(start, stop))
    for places, sequence in zip(layout.places, sequences, strict=True):
        for index, place in enumerate(places):
            owner, at = layout.source[place]
            assert (sequences[owner][at], at) == (sequence[index], index)
            assert seen[place] == set(places[: index + 1])
    assert {place for places in layout.places for place in places} == set(range(size))


def test_a_long_enough_beginning_is_shared_and_a_short_one_is_not() -> None:
    assert len(lay_out([[1] * 16 + [2], [1] * 16 + [3]]).source) == 18
    assert len(lay_out([[1] * 15 + [2], [1] * 15 + [3]]).source) == 32
    # What three share saves twice.
    assert len(lay_out([[1] * 8 + [n] for n in range(3)]).source) == 11
    assert shared_length([[1, 2, 3], [1, 2, 4, 5]]) == 2


def test_plain_forwards_go_on_while_packs_are_allowed() -> None:
    model: Any = tiny(FAMILIES["llama"]).model
    ids = torch.arange(20)[None]
    mask = torch.tensor([[0] * 5 + [1] * 15])
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
        with packing_attention(model):
            inside = model(ids, attention_mask=mask).logits
        assert torch.equal(plain, inside)
    assert model.config._attn_implementation == "sdpa"
