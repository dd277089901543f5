"""A tiny first-generation Qwen as it lies on disk, and its forward pass in plain NumPy.

The forward is written from the published architecture and shares nothing with the package.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Arrays = dict[str, np.ndarray]

TINY = {
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "kv_channels": 8,
    "seq_length": 2048,
    "max_position_embeddings": 8192,
    "vocab_size": 480,
}


def qwen_settings(**changes: Any) -> dict[str, Any]:
    """The config.json of Qwen-7B with tiny sizes."""
    real = Path(__file__).parent / "configs" / "qwen-7b.json"
    return {**json.loads(real.read_text(encoding="utf-8")), **TINY, **changes}


def qwen_weights(config: Mapping[str, Any], seed: int = 0) -> Arrays:
    """Random float32 tensors under the names and in the shapes that Qwen's own code has."""
    rng = np.random.default_rng(seed)
    width, half = config["hidden_size"], config["intermediate_size"] // 2

    def near(middle: float, *shape: int) -> np.ndarray:
        return (middle + rng.normal(0, 0.2, shape)).astype(np.float32)

    weights = {
        "transformer.wte.weight": near(0, config["vocab_size"], width),
        "transformer.ln_f.weight": near(1, width),
        "lm_head.weight": near(0, config["vocab_size"], width),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"transformer.h.{layer}"
        weights |= {
            f"{at}.ln_1.weight": near(1, width),
            f"{at}.ln_2.weight": near(1, width),
            f"{at}.attn.c_attn.weight": near(0, 3 * width, width),
            f"{at}.attn.c_attn.bias": near(0, 3 * width),
            f"{at}.attn.c_proj.weight": near(0, width, width),
            f"{at}.mlp.w1.weight": near(0, half, width),
            f"{at}.mlp.w2.weight": near(0, half, width),
            f"{at}.mlp.c_proj.weight": near(0, width, half),
        }
    return weights


def write_tiny_qwen(
    folder: Path, *, chat: bool = False, index: bool = True, seed: int = 0, **changes: Any
) -> Path:
    """A folder as Qwen-7B's (or Qwen-7B-Chat's), of random weights on three shards."""
    folder.mkdir(parents=True, exist_ok=True)
    config = qwen_settings(**changes)
    (folder / "config.json").write_text(json.dumps(config))
    weights = qwen_weights(config, seed)
    names = sorted(weights)
    places = {}
    for shard in range(3):
        file = f"model-{shard + 1:05d}-of-00003.safetensors"
        held = names[shard::3]
        save_file({name: weights[name] for name in held}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(held, file)
    if index:
        size = sum(array.nbytes for array in weights.values())
        listed = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(listed))
    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    named = {"tokenizer_class": "QWenTokenizer", "model_max_length": config["seq_length"]}
    named["auto_map"] = {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    decoding = {"eos_token_id": 256, "pad_token_id": 256, "max_new_tokens": 512, "top_p": 0.8}
    decoding |= {"do_sample": True, "top_k": 0}
    if chat:
        decoding |= {"chat_format": "chatml", "max_window_size": 6144, "repetition_penalty": 1.1}
    else:
        decoding |= {"chat_format": "raw", "stop_words_ids": [[256]]}
    (folder / "generation_config.json").write_text(json.dumps(decoding))
    return folder


def qwen_logits(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: Any) -> Any:
    """Logits (tokens, vocabulary) of the token ids `ids`, at most `seq_length`, in float64."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    x = w["transformer.wte.weight"][np.asarray(ids)]
    for layer in range(config["num_hidden_layers"]):
        at = f"transformer.h.{layer}"
        normed = _rms_norm(x, w[f"{at}.ln_1.weight"], config["layer_norm_epsilon"])
        mixed = normed @ w[f"{at}.attn.c_attn.weight"].T + w[f"{at}.attn.c_attn.bias"]
        x = x + _attention(mixed, config) @ w[f"{at}.attn.c_proj.weight"].T
        normed = _rms_norm(x, w[f"{at}.ln_2.weight"], config["layer_norm_epsilon"])
        a1, a2 = normed @ w[f"{at}.mlp.w1.weight"].T, normed @ w[f"{at}.mlp.w2.weight"].T
        x = x + (a1 * a2 / (1 + np.exp(-a2))) @ w[f"{at}.mlp.c_proj.weight"].T
    final = _rms_norm(x, w["transformer.ln_f.weight"], config["layer_norm_epsilon"])
    return final @ w["lm_head.weight"].T


def _rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def _attention(mixed: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """(tokens, 3 * width) to (tokens, width): queries, keys and values side by side."""
    tokens, heads, size = len(mixed), config["num_attention_heads"], config["kv_channels"]
    q, k, v = (part.reshape(tokens, heads, size) for part in np.split(mixed, 3, axis=1))
    q, k = _rotated(q, config["rotary_emb_base"]), _rotated(k, config["rotary_emb_base"])
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size)
    scores[:, np.triu(np.ones((tokens, tokens), dtype=bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(tokens, heads * size)


def _rotated(x: np.ndarray, base: float) -> np.ndarray:
    """Rotary positions: number i of a head turns with number i + size / 2."""
    half = x.shape[-1] // 2
    angles = np.arange(len(x))[:, None] / base ** (np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
