"""What is saved of a tuned model."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from kilotune.models.pretrained import decoder_layers
from kilotune.models.source import source_at
from kilotune.models.tuned_weights import _tensors


def test_buffers_of_a_checkpoint_are_saved_with_the_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = source_at(tiny_model).model(torch.float32)
    layer = decoder_layers(model)[1][0]
    layer.register_buffer("scale", torch.tensor([0.5]))
    layer.register_buffer("passing", torch.tensor([7.0]), persistent=False)
    model.save_pretrained(tmp_path / "model", state_dict=dict(_tensors(model)))
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert saved["model.layers.0.scale"].tolist() == [0.5]
    assert "model.layers.0.passing" not in saved
    assert saved.keys() >= dict(model.named_parameters()).keys()
