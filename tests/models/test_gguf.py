"""GGUF files, written here by the format's own library."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from transformers import AutoModelForCausalLM, Qwen2Config

from kilotune.errors import KilotuneError
from kilotune.models.gguf import gguf_folder
from kilotune.models.size import empty_model, model_size
from kilotune.models.source import locate, locate_config, locate_tokenizer
from kilotune.recipe.schema import ModelSettings
from tests.support.tiny import CHATML, byte_tokenizer

IDS = torch.arange(12)[None]
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KILOTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny_qwen() -> Any:
    config = Qwen2Config(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def gguf_name(name: str) -> str:
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }  # fmt: skip
    if name in fixed:
        return fixed[name]
    _, _, number, *inner, kind = name.split(".")
    return f"blk.{number}.{NAMES['.'.join(inner)]}.{kind}"


def write_gguf(
    path: Path, model: Any, *, tokenizer: bool = True, without: str = ""
) -> dict[str, np.ndarray]:
    """Matrices in 8 bits, the rest in float32. Returns the weights that the file stands for."""
    config, writer = model.config, GGUFWriter(path, "qwen2")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer:
        add_tokenizer(writer)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name == without:
            continue
        values = tensor.numpy()
        if values.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(values, kind)
            writer.add_tensor(gguf_name(name), packed, raw_dtype=kind)
            weights[name] = gguf.quants.dequantize(packed, kind)
        else:
            writer.add_tensor(gguf_name(name), values)
            weights[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def add_tokenizer(writer: GGUFWriter) -> None:
    known = byte_tokenizer()
    vocabulary = sorted(known.get_vocab().items(), key=lambda pair: pair[1])
    tokens = [token for token, _ in vocabulary] + ["ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(known.eos_token_id)
    writer.add_pad_token_id(known.pad_token_id)
    writer.add_chat_template(CHATML)


def test_a_gguf_file_is_the_model_of_its_dequantised_weights(tmp_path: Path, cache: Path) -> None:
    model = tiny_qwen()
    weights = write_gguf(tmp_path / "tiny.gguf", model)
    settings = ModelSettings(name=str(tmp_path / "tiny.gguf"))
    source = locate(settings)
    assert Path(source.place).parent == cache / "models" / "gguf"
    assert "quantization_config" not in (Path(source.place) / "config.json").read_text()
    loaded = source.model(torch.float32)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, torch.from_numpy(weights[name])), name
    exact = tiny_qwen()
    exact.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, exact(IDS).logits)
        assert not torch.equal(loaded(IDS).logits, model(IDS).logits)
    size = model_size(empty_model(locate_config(settings).config))
    assert size.parameters == sum(array.size for array in weights.values())


def test_tokenizer_template_and_end_come_from_the_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_qwen())
    settings = ModelSettings(name=str(tmp_path / "tiny.gguf"))
    tokenizer = locate_tokenizer(settings).tokenizer()
    assert tokenizer.chat_template == CHATML
    assert tokenizer.eos_token == "<|im_end|>"
    text = "<|im_start|>user\ncabbage<|im_end|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids[0] == byte_tokenizer().convert_tokens_to_ids("<|im_start|>")
    assert 259 in ids  # "ab"
    assert tokenizer.decode(ids) == text


def test_it_is_dequantised_once_and_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, tiny_qwen())
    (tmp_path / "config.json").write_text("not read")
    first = gguf_folder(str(file))
    made = (first / "model.safetensors").stat().st_mtime_ns
    assert gguf_folder(str(file)) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == made
    other = tiny_qwen()
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    write_gguf(file, other)
    assert gguf_folder(str(file)) != first


def test_what_is_missing_from_a_file_or_broken_is_one_clear_error(
    tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(KilotuneError, match="no such GGUF file"):
        locate(ModelSettings(name=str(tmp_path / "none.gguf")))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nothing")
    with pytest.raises(KilotuneError, match="no model that transformers can build") as caught:
        locate(ModelSettings(name=str(tmp_path / "broken.gguf")))
    assert "model.name=FOLDER" in caught.value.fix
    write_gguf(tmp_path / "mute.gguf", tiny_qwen(), tokenizer=False)
    with pytest.raises(KilotuneError, match="no tokenizer that transformers can build"):
        locate(ModelSettings(name=str(tmp_path / "mute.gguf")))
    gone = "model.layers.1.mlp.up_proj.weight"
    write_gguf(tmp_path / "gap.gguf", tiny_qwen(), without=gone)
    with pytest.raises(KilotuneError, match=rf"gap\.gguf: the weights lack {gone}"):
        locate(ModelSettings(name=str(tmp_path / "gap.gguf")))
    left = (cache / "models" / "gguf").iterdir()
    assert [path.name for path in left if path.suffix != ".lock"] == []
