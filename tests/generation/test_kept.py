"""Scoring that starts from kept states equals scoring with the whole model."""

from typing import Any

import pytest
import torch

from kilotune.generation import score
from kilotune.generation.kept import KeptStates, row_name
from kilotune.generation.prompts import Prompts
from kilotune.generation.score import LabelScores, LabelSet, LabelTree, score_labels
from kilotune.models import lower
from kilotune.models.pretrained import decoder_layers
from kilotune.progress import Silent
from tests.generation.test_score import (
    APART,
    LABELS,
    PROMPTS,
    SYSTEM,
    Said,
    one_by_one,
    relative_error,
)
from tests.support.kinds import KINDS, tiny_kind


def upper_trained(kind: str) -> Any:
    """A tiny model whose last layer alone is trained."""
    model = tiny_kind(kind)
    name, layers = decoder_layers(model)
    for path, parameter in model.named_parameters():
        parameter.requires_grad = path.startswith(f"{name}.{len(layers) - 1}.")
    return model


def tune(model: Any) -> None:
    """Another last layer."""
    generator = torch.Generator().manual_seed(5)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)


def scores(
    model: Any, prompts: list[list[int]], kept: KeptStates | None, progress: Any = None
) -> list[LabelScores]:
    progress = progress or Silent()
    return score_labels(
        model, Prompts(prompts), LabelSet(LABELS, pad_id=0), progress=progress, kept=kept
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompts", [PROMPTS, APART], ids=["shared prefix", "nothing shared"])
def test_a_second_model_starts_at_the_trained_layer_and_scores_the_same(
    kind: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "TOKEN_BUDGET", 50)  # several batches
    model, said = upper_trained(kind), Said()
    kept = KeptStates.of(model)
    assert kept is not None
    first = scores(model, prompts, kept, said)
    assert relative_error(first, one_by_one(model, prompts, LABELS)) < 1e-5
    tune(model)
    again = scores(model, prompts, kept, said)
    plain = one_by_one(model, prompts, LABELS)
    assert relative_error(again, plain) < 1e-5
    assert relative_error(first, plain) > 1e-3  # it is another model
    assert not said.lines


def first_layer_tokens(model: Any) -> list[int]:
    """Grows by the tokens that each forward of the whole model takes through the first layer."""
    counts: list[int] = []
    norm = next(m for name, m in model.named_modules() if name.endswith("0.input_layernorm"))
    norm.register_forward_hook(lambda module, args, output: counts.append(args[0][..., 0].numel()))
    return counts


def test_the_lower_layers_see_the_kept_rows_no_more_but_new_ones() -> None:
    model = upper_trained("llama")
    kept = KeptStates.of(model)
    counts = first_layer_tokens(model)
    scores(model, PROMPTS, kept)
    whole = sum(counts)
    counts.clear()
    scores(model, PROMPTS, kept)
    # What all share; and of the one prompt that the fast ways are tried on, plain rows and a tree.
    plain = 2 * (len(PROMPTS[2]) + max(map(len, LABELS)) - 1)
    tree = len(PROMPTS[2]) - len(SYSTEM) + len(LabelTree.of(LABELS).tokens)
    assert sum(counts) == len(SYSTEM) + plain + tree < whole / 2
    counts.clear()
    scores(model, [*PROMPTS, [*SYSTEM, 99, 98, 97, 96]], kept)
    assert sum(counts) > len(SYSTEM) + plain + tree


def test_without_room_nothing_is_kept_and_all_is_right() -> None:
    model, said = upper_trained("llama"), Said()
    kept = KeptStates(below=1, limit=0)
    for _ in range(2):
        found = scores(model, PROMPTS, kept, said)
        assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5
    assert (kept.rows, kept.size, said.lines) == ({}, 0, [])


def test_states_of_other_lower_layers_are_found_out_and_left() -> None:
    model, said = upper_trained("llama"), Said()
    kept = KeptStates.of(model)
    scores(model, PROMPTS, kept)
    embeddings = model.get_input_embeddings().weight
    embeddings.data = embeddings.data.roll(1, dims=0)
    found = scores(model, PROMPTS, kept, said)
    assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5
    assert len(said.lines) == 1
    assert said.lines[0].startswith("all layers are computed: from kept states, scores are off by")
    assert (kept.rows, kept.size, kept.limit) == ({}, 0, 0)


def test_layers_that_hand_on_tuples_are_not_passed_by_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, said = upper_trained("llama"), Said()

    def unable(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not enough values")

    monkeypatch.setattr(lower, "_hand_on", unable)
    found = scores(model, PROMPTS, KeptStates.of(model), said)
    assert relative_error(found, one_by_one(model, PROMPTS, LABELS)) < 1e-5
    assert said.lines == ["all layers are computed: from kept states, not enough values"]


def test_a_model_trained_from_the_first_layer_has_none() -> None:
    assert KeptStates.of(tiny_kind("llama")) is None


def test_rows_are_told_apart_by_where_their_parts_end() -> None:
    assert row_name([1, 2], [3]) != row_name([1], [2, 3])
    assert row_name([1, 2], [3]) == row_name((1, 2), (3,))
