"""What runs under transformers 4, without kilotune: `python transformers_4.py make|ask|tokenize …`.

`make FOLDER` saves random models of several kinds as that version publishes them; `ask FOLDER …`
writes what the model in each folder predicts for the inputs in its `inputs.safetensors`;
`tokenize TEXT FOLDER …` what the tokenizer in each makes of a text.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
    "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BASE = {"rope_theta": 123456.0}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
NEOX = {
    name: SIZES[name]
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
}
LATENT = {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "moe_intermediate_size": 16, "first_k_dense_replace": 1, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_rope_head_dim": 8, "v_head_dim": 8, "qk_nope_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
TEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**BASE, "tie_word_embeddings": True}),
    "llama3": ("llama", {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    "yarn": ("qwen2", {"rope_theta": 1e6, "rope_scaling": YARN}),
    "qwen3": ("qwen3", {**BASE, "head_dim": 16}),
    "gemma3": (
        "gemma3_text",
        {
            "rope_theta": 2e6, "rope_local_base_freq": 2e4, "head_dim": 16,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi3": ("phi3", {**BASE, "partial_rotary_factor": 0.5}),
    "stablelm": ("stablelm", {**BASE, "partial_rotary_factor": 0.25}),
    "gpt_neox": ("gpt_neox", {**NEOX, "rotary_emb_base": 3e4, "rotary_pct": 0.5}),
    "glm4": ("glm4", {**BASE, "partial_rotary_factor": 0.5, "head_dim": 16}),
    "qwen2_moe": ("qwen2_moe", {**BASE, **EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("qwen3_moe", {**BASE, **EXPERTS, "head_dim": 16}),
    "mixtral": ("mixtral", {**BASE, "num_local_experts": 4}),
    "olmoe": ("olmoe", {**BASE, "num_experts": 8, "num_experts_per_tok": 2}),
    "deepseek_v3": ("deepseek_v3", {**BASE, **LATENT}),
}  # fmt: skip
MROPE = {"rope_theta": 1e6, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
TOKENS = {
    "image_token_id": 290, "video_token_id": 291, "vision_start_token_id": 292,
    "vision_end_token_id": 293,
}  # fmt: skip
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
}  # fmt: skip
SEEING: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        **TOKENS, "tie_word_embeddings": True, **SIZES, **MROPE,
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4},
    },
    "qwen2_5_vl": {
        **TOKENS, **SIZES, **MROPE,
        "vision_config": {
            "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4,
            "intermediate_size": 64, "fullatt_block_indexes": [1], "window_size": 56,
        },
    },
    "qwen3_vl": {
        **TOKENS, "tie_word_embeddings": True,
        "text_config": {**SIZES, **MROPE, "head_dim": 8, "tie_word_embeddings": True},
        "vision_config": {
            "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4,
            "intermediate_size": 64, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
    },
    "llava": {
        "image_token_index": 290, "image_seq_length": 4, "vision_config": CLIP,
        "text_config": {"model_type": "llama", **SIZES, **BASE},
    },
}  # fmt: skip


def make(folder: Path) -> None:
    """A folder a kind: the checkpoint, and `inputs.safetensors`."""
    for name, (kind, settings) in TEXTS.items():
        sizes = {} if kind == "gpt_neox" else SIZES
        config = transformers.AutoConfig.for_model(kind, **{**sizes, **settings})
        _save(folder / name, transformers.AutoModelForCausalLM, config, {})
    for name, settings in SEEING.items():
        config = transformers.AutoConfig.for_model(name, **settings)
        _save(folder / name, transformers.AutoModelForImageTextToText, config, _picture(name))


def _save(folder: Path, kind: Any, config: Any, pictured: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    kind.from_config(config, dtype=torch.float32).save_pretrained(folder)
    ids = [4, 9, 33, 2, 60, 61, 17] * 8
    if pictured:
        ids = [4, 9, 292, *4 * [290], 293, *ids]
    inputs = {"input_ids": torch.tensor([ids]), **pictured}
    save_file({n: t.contiguous() for n, t in inputs.items()}, folder / "inputs.safetensors")


def _picture(kind: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    if kind == "llava":
        return {"pixel_values": torch.randn(1, 3, 28, 28)}
    patch = 16 if kind == "qwen3_vl" else 14
    grid = torch.tensor([[1, 4, 4]])
    return {"pixel_values": torch.randn(16, 3 * 2 * patch**2), "image_grid_thw": grid}


def ask(folder: Path) -> dict[str, Any]:
    """What the model in a folder predicts, and what was wrong with its checkpoint."""
    inputs = load_file(folder / "inputs.safetensors")
    seeing = transformers.AutoModelForImageTextToText
    kind = seeing if "pixel_values" in inputs else transformers.AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits[0, -1]
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = sorted(file.keys())
    wrong = {name: sorted(map(str, found)) for name, found in info.items() if found}
    return {"logits": logits.tolist(), "wrong": wrong, "names": names}


if __name__ == "__main__":
    assert transformers.__version__.startswith("4."), transformers.__version__
    torch.set_num_threads(1)
    task, *folders = sys.argv[1:]
    if task == "make":
        make(Path(folders[0]))
    elif task == "tokenize":
        text, *folders = folders
        read = transformers.AutoTokenizer.from_pretrained
        json.dump({folder: dict(read(folder)(text)) for folder in folders}, sys.stdout)
    else:
        json.dump({folder: ask(Path(folder)) for folder in folders}, sys.stdout)
    assert "kilotune" not in sys.modules
