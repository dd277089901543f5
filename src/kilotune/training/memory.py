"""How many examples fit in memory at once."""

import psutil
import torch

from kilotune.models.lower import first_trained_layer
from kilotune.models.pretrained import Model, best_device, layer_count

# Leave room for the optimiser, the allocator and everything else that runs on the machine.
USABLE = 0.6


def micro_batch_size(
    model: Model, longest: int, batch_size: int, available: int, shared: int = 0
) -> int:
    """The largest divisor of `batch_size` whose activations fit `available` bytes (at least 1).

    `longest` is the longest rendering in tokens, of which `shared` are computed once for all.
    Gradient accumulation makes up the rest, so that an optimiser step always sees `batch_size`
    examples.
    """
    together = activation_bytes(model, shared)
    each = activation_bytes(model, longest) - together
    divisors = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
    return max((size for size in divisors if together + size * each <= available), default=1)


def activation_bytes(model: Model, length: int) -> int:
    """An upper estimate of what one example keeps for the backward pass.

    Counts, per layer and token, the inputs of the linear layers, norms, the gated product of the
    MLP and adapters' float32 copies (about 24 widths and 8 MLP widths) and the attention scores.
    Layers below the lowest trained one keep nothing.
    """
    config = model.config.get_text_config()
    width = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    if not isinstance(inner, int):  # one a layer
        inner = max(inner)
    heads = int(config.num_attention_heads)
    per_token = 24 * width + 8 * inner + 2 * heads * length
    layers = layer_count(model) - first_trained_layer(model)
    return layers * length * per_token * 4


def available_bytes() -> int:
    """Memory that a batch may take on the device that trains."""
    device = best_device()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * USABLE)
    return int(psutil.virtual_memory().available * USABLE)
