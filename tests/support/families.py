"""Tiny random models of several kinds, with adapters whose B is not at its zero start."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from kilotune.models.freeze import Tunable
from kilotune.recipe.schema import LoraSettings

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "pad_token_id": 256,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=1024),
    "gemma": GemmaConfig(**SIZES, tie_word_embeddings=True),
}
SOFT_CAPPED = Gemma2Config(**SIZES)
SHORT_WINDOW = MistralConfig(**SIZES, sliding_window=8)


def tiny(config: PreTrainedConfig, layers: str = "all", seed: int = 0) -> Tunable:
    """A random model of `config` under LoRA, its B perturbed: at zero, A has no gradient."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tunable = Tunable(model.eval(), LoraSettings(learning_rate=1e-3, layers=layers), seed)
    perturb(tunable)
    return tunable


def perturb(tunable: Tunable, size: float = 0.1) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in tunable.trained():
            if "lora_B" in name:
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
