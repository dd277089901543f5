"""Random models of two layers, of every kind of attention that the fast paths must get right."""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

CONFIGS = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "mistral": MistralConfig,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
}
KINDS = ("llama", "qwen2", "qwen3", "mistral", "gemma")


def tiny_kind(kind: str, **settings: Any) -> Any:
    """A random float32 model of `kind` with a vocabulary of 128, in evaluation mode.

    Its weights are large, so that attention is far from even and a wrong mask shows.
    """
    import torch

    config = CONFIGS[kind](
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=3,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
