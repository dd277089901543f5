from pathlib import Path

import torch

from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.schema import LoraSettings
from kilotune.training.memory import activation_bytes, available_bytes, micro_batch_size


def test_the_largest_divisor_that_fits_is_chosen(tiny_model: Path) -> None:
    model = source_at(tiny_model).model(torch.float32)
    one = activation_bytes(model, 100)
    for room, expected in ((100 * one, 8), (7 * one, 4), (3 * one, 2), (one, 1), (0, 1)):
        assert micro_batch_size(model, 100, 8, room) == expected
    assert micro_batch_size(model, 100, 12, 5 * one) == 4


def test_layers_below_the_lowest_trained_one_take_nothing(tiny_model: Path) -> None:
    sizes = []
    for layers in ("all", "top:1"):
        model = source_at(tiny_model).model(torch.float32)
        tunable = Tunable(model, LoraSettings(learning_rate=1e-3, layers=layers), seed=0)
        sizes.append(activation_bytes(tunable.model, 100))
    assert sizes[0] == 3 * sizes[1]


def test_longer_examples_take_more(tiny_model: Path) -> None:
    model = source_at(tiny_model).model(torch.float32)
    assert activation_bytes(model, 200) > 2 * activation_bytes(model, 100)
    assert available_bytes() > 0
