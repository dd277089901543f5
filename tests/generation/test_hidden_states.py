"""States of prompts in batches behind a shared prefix, against each prompt by itself."""

import numpy as np
import pytest
import torch

from kilotune.generation.hidden_states import hidden_states, places
from kilotune.generation.prompts import Prompts
from kilotune.models.pretrained import decoder_layers
from kilotune.progress import Silent
from tests.support.kinds import KINDS, tiny_kind

HEAD = [7, 3, 9, 4, 8, 2, 6, 5, 9, 3]
RESTS = [[4, 5], [6, 7, 8, 9, 3, 2, 5], [5], [9, 9, 2, 4]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_each_prompt_has_the_states_that_it_has_alone(kind: str, shared: bool) -> None:
    model = tiny_kind(kind)
    rows = [[*HEAD, *rest] if shared else [*rest, *HEAD] for rest in RESTS]
    wanted = places(model)
    border = len(HEAD) if shared else 0
    found = hidden_states(model, Prompts(rows), wanted, skip=border, pad_id=0, progress=Silent())
    own = {layer: [] for layer, _ in wanted}
    for row in rows:
        with torch.inference_mode():
            states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer in own:
            own[layer].append(states[layer][0].float().numpy())
    last = len(decoder_layers(model)[1])  # behind which transformers gives the normed states
    for (layer, pooling), vectors in found.items():
        if layer == last:
            assert np.isfinite(vectors).all()
            continue
        for vector, states in zip(vectors, own[layer], strict=True):
            expected = states[-1] if pooling == "last" else states[border:].mean(axis=0)
            np.testing.assert_allclose(vector, expected, atol=2e-5)


@pytest.mark.parametrize("skip", [0, 4, len(HEAD), 30])
def test_a_prompt_has_the_same_states_whatever_is_beside_it(skip: int) -> None:
    model = tiny_kind("llama")
    rows = [[*HEAD, *rest] for rest in RESTS] + [[5, 5, 5]]
    wanted = places(model)

    def states(prompts: list[list[int]]) -> dict[object, np.ndarray]:
        given = {"skip": skip, "pad_id": 0, "progress": Silent()}
        return hidden_states(model, Prompts(prompts), wanted, **given)  # type: ignore[arg-type]

    together, alike = states(rows), states(rows[:-1])
    for number, row in enumerate(rows):
        for place, alone in states([row]).items():
            np.testing.assert_allclose(together[place][number], alone[0], atol=2e-5)
            if number < len(alike[place]):
                np.testing.assert_allclose(alike[place][number], alone[0], atol=2e-5)
