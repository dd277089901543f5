"""A frozen layer taken by itself."""

from pathlib import Path

import torch

from kilotune.models.lower import in_float32
from kilotune.models.pretrained import decoder_layers
from kilotune.models.source import source_at


def test_a_layer_is_float32_for_a_while_and_then_as_before_buffers_too(tiny_model: Path) -> None:
    model = source_at(tiny_model).model(torch.bfloat16)
    layer = decoder_layers(model)[1][0]
    layer.register_buffer("scale", torch.tensor(0.5, dtype=torch.bfloat16))
    layer.register_buffer("count", torch.tensor(3))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with in_float32(model, 0):
        assert {t.dtype for t in layer.parameters()} == {torch.float32}
        assert (layer.scale.dtype, layer.count.dtype) == (torch.float32, torch.int64)
    after = layer.state_dict()
    assert {n: t.dtype for n, t in after.items()} == {n: t.dtype for n, t in before.items()}
    assert all(torch.equal(after[name], before[name]) for name in before)
