"""Saved models have their settings where other programs and older transformers look for them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaTokenizer,
    MixtralConfig,
    Qwen2VLConfig,
    Qwen3MoeConfig,
)

from kilotune.models.interchange import add_older_settings
from kilotune.models.merge import write_merged
from tests.support.families import SIZES
from tests.support.tiny import byte_tokenizer, word_tokenizer
from tests.support.tiny_vision import KINDS, write_kind

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 1e5}
SECTIONS = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
EXPERTS = {"num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
TWO = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
}
# A configuration, and what an older reader finds in it.
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (LlamaConfig(rope_parameters=PLAIN), {"rope_theta": 1e5}),
    "scaled": (
        LlamaConfig(rope_parameters=LLAMA3),
        {"rope_theta": 5e5, "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}},
    ),
    "two kinds": (
        Gemma3TextConfig(rope_parameters=TWO, layer_types=list(TWO), num_hidden_layers=2),
        {
            "rope_theta": 2e6, "rope_local_base_freq": 2e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ),
    "neox": (
        GPTNeoXConfig(rope_parameters={**PLAIN, "partial_rotary_factor": 0.5}),
        {"rotary_emb_base": 1e5, "rotary_pct": 0.5},
    ),
    "experts": (Qwen3MoeConfig(num_local_experts=8), {"num_experts": 8}),
    "precision": (LlamaConfig(dtype="bfloat16"), {"torch_dtype": "bfloat16"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_an_older_reader_finds_what_transformers_5_reads_unchanged(
    name: str, tmp_path: Path
) -> None:
    config, wanted = CONFIGS[name]
    config = copy.deepcopy(config)
    config.save_pretrained(tmp_path)
    plain = AutoConfig.from_pretrained(tmp_path).to_dict()
    add_older_settings(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert {key: written.get(key) for key in wanted} == wanted
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == plain
    assert ("rope_scaling" in written) == ("rope_scaling" in wanted)
    again = (tmp_path / "config.json").read_bytes()
    add_older_settings(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == again


def test_a_model_inside_another_has_its_own(tmp_path: Path) -> None:
    config = Qwen2VLConfig(text_config={"rope_parameters": SECTIONS}, tie_word_embeddings=True)
    config.save_pretrained(tmp_path)
    add_older_settings(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    inner = written["text_config"]
    assert inner["rope_theta"] == 1e6
    assert inner["rope_scaling"]["mrope_section"] == [1, 1, 2]
    assert inner["rope_scaling"]["type"] == "default"
    assert inner["tie_word_embeddings"] is True
    assert "rope_scaling" not in written["vision_config"]
    read = AutoConfig.from_pretrained(tmp_path)
    assert read.tie_word_embeddings is True
    assert read.text_config.rope_parameters["rope_theta"] == 1e6


def test_a_tokenizer_is_one_that_transformers_4_knows_and_writes_the_same(tmp_path: Path) -> None:
    marked = byte_tokenizer()
    marked.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    bare = json.loads(word_tokenizer(None, ["▁Hello"]).backend_tokenizer.to_str())["model"]
    llama = LlamaTokenizer(vocab=bare["vocab"], merges=list(map(tuple, bare["merges"])))
    text = "Hello <|im_start|> world"
    for name, tokenizer in {"marked": marked, "llama": llama}.items():
        tokenizer.save_pretrained(tmp_path / name)
        before = AutoTokenizer.from_pretrained(tmp_path / name)
        add_older_settings(tmp_path / name)
        settings = json.loads((tmp_path / name / "tokenizer_config.json").read_text())
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert settings["model_input_names"] == ["input_ids", "attention_mask"]
        assert "extra_special_tokens" not in settings
        after = AutoTokenizer.from_pretrained(tmp_path / name)
        assert after(text)["input_ids"] == before(text)["input_ids"]
        assert after.all_special_tokens == before.all_special_tokens
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(tmp_path / "marked").all_special_tokens


def names(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sorted(file.keys())


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_that_sees_has_every_tensor_under_its_published_name(
    kind: str, tmp_path: Path
) -> None:
    base = write_kind(kind, tmp_path / "base")
    model = AutoModelForImageTextToText.from_pretrained(base)
    (tmp_path / "merged").mkdir()
    write_merged(get_peft_model(model, LoraConfig(target_modules=["q_proj"])), tmp_path / "merged")
    AutoProcessor.from_pretrained(base).save_pretrained(tmp_path / "merged")
    add_older_settings(tmp_path / "merged")
    assert names(tmp_path / "merged") == names(base)
    images = json.loads((tmp_path / "merged" / "preprocessor_config.json").read_text())
    # As programs that know no processor_config.json read it.
    (tmp_path / "merged" / "processor_config.json").unlink()
    read = AutoImageProcessor.from_pretrained(tmp_path / "merged")
    assert type(read).__name__ == images["image_processor_type"]


def test_a_qwen2_vl_has_the_names_that_converters_look_for(tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(write_kind("qwen2_vl", tmp_path / "base"))
    (tmp_path / "merged").mkdir()
    write_merged(get_peft_model(model, LoraConfig(target_modules=["q_proj"])), tmp_path / "merged")
    found = names(tmp_path / "merged")
    assert {name.split(".")[0] for name in found} == {"model", "visual"}
    assert "model.layers.0.self_attn.q_proj.weight" in found
    assert sum(name.startswith("visual.") for name in found) > 20


@pytest.mark.parametrize("shard", [2_000_000_000, 40_000], ids=["one file", "shards"])
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
def test_experts_are_written_one_by_one(kind: str, shard: int, tmp_path: Path) -> None:
    config = {
        "qwen3_moe": Qwen3MoeConfig(**SIZES, **EXPERTS),
        "mixtral": MixtralConfig(**SIZES, num_local_experts=4),
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(
            tmp_path / "b"
        )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    settings = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    tuned = get_peft_model(model, settings).eval()
    (tmp_path / "m").mkdir()
    write_merged(tuned, tmp_path / "m", shard)
    add_older_settings(tmp_path / "m")
    found: list[str] = []
    for file in (tmp_path / "m").glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found += opened.keys()
    assert sorted(found) == names(tmp_path / "b")
    one = {"qwen3_moe": "mlp.experts.7.down_proj", "mixtral": "block_sparse_moe.experts.3.w2"}[kind]
    assert f"model.layers.1.{one}.weight" in found
    ids = torch.tensor([[4, 9, 33, 2, 60, 61, 17]])
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
        assert (again(ids).logits - tuned(ids).logits).abs().max() < 1e-4
