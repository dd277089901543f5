from pathlib import Path
from typing import Any

import torch

from kilotune.models.source import source_at
from kilotune.models.trainable import select_trained
from kilotune.models.tree import module_tree, tree_lines
from kilotune.recipe.schema import LoraSettings, Method, TopLayersSettings


def tree(folder: Path, settings: Method) -> list[str]:
    model: Any = source_at(folder).model(torch.float32)
    return tree_lines(module_tree(select_trained(model, settings, seed=0)))


def test_equal_layers_are_one_line_and_what_is_all_frozen_or_all_trained_ends_there(
    tiny_model: Path,
) -> None:
    top = TopLayersSettings(method="top_layers", learning_rate=1e-3, layers="top:1")
    # A layer has 2 x 32 x 32 + 2 x 32 x 16 for attention, 3 x 32 x 64, and two norms of 32.
    assert tree(tiny_model, top) == [
        "model           9,280 of 36,160",
        "  embed_tokens      0 of  8,288",
        "  layers.0-1        0 of 18,560",
        "  layers.2      9,280 of  9,280",
        "  norm              0 of     32",
    ]


def test_adapters_count_with_the_module_that_they_adapt(tiny_model: Path) -> None:
    lora = LoraSettings(learning_rate=1e-3, rank=4, target_modules=("q_proj", "down_proj"))
    # A and B of q: 4 x (32 + 32), of down: 4 x (64 + 32), in three layers.
    assert tree(tiny_model, lora) == [
        "model                         1,920 of 38,080",
        "  embed_tokens                    0 of  8,288",
        "  layers.0-2                  1,920 of 29,760",
        "    self_attn                   768 of  9,984",
        "      q_proj                    768 of  3,840",
        "      k_proj                      0 of  1,536",
        "      v_proj                      0 of  1,536",
        "      o_proj                      0 of  3,072",
        "    mlp                       1,152 of 19,584",
        "      gate_proj                   0 of  6,144",
        "      up_proj                     0 of  6,144",
        "      down_proj               1,152 of  7,296",
        "    input_layernorm               0 of     96",
        "    post_attention_layernorm      0 of     96",
        "  norm                            0 of     32",
    ]
