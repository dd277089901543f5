"""Every common kind of causal language model, tiny and random, through a whole tuning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from kilotune.models.merge import write_merged
from kilotune.models.size import empty_model, trained_part
from kilotune.models.source import locate
from kilotune.models.tuned_weights import load_tuned
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.session.fine_tuning import fine_tune, render, save
from kilotune.session.loading import open_session
from tests.support.tiny import byte_tokenizer, labelled_csv

pytestmark = pytest.mark.slow

TOKENIZER = byte_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER), "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 1024, "bos_token_id": None,
    "eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id,
}  # fmt: skip
GQA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# A configuration, and the linear layers that adapters go beside.
KINDS: dict[str, tuple[PreTrainedConfig, tuple[str, ...]]] = {
    "llama": (LlamaConfig(**SIZES), GQA),
    "smollm2": (LlamaConfig(**SIZES, tie_word_embeddings=True, rope_theta=1e5), GQA),
    "qwen2": (Qwen2Config(**SIZES, tie_word_embeddings=True), GQA),
    "qwen2.5": (Qwen2Config(**SIZES, rope_theta=1e6, use_sliding_window=False), GQA),
    "qwen3": (Qwen3Config(**SIZES, head_dim=16), GQA),
    "mistral": (MistralConfig(**SIZES, sliding_window=512), GQA),
    "gemma": (GemmaConfig(**SIZES, head_dim=8), GQA),
    "gemma2": (Gemma2Config(**SIZES, head_dim=8, sliding_window=512), GQA),
    "gemma3": (Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=512), GQA),
    "phi": (PhiConfig(**SIZES), ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),
    "phi3": (Phi3Config(**SIZES), ("o_proj", "qkv_proj", "gate_up_proj", "down_proj")),
    "gpt-neox": (
        GPTNeoXConfig(**SIZES),
        ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    ),
    "gpt2": (
        GPT2Config(
            vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, n_positions=1024,
            eos_token_id=TOKENIZER.eos_token_id, pad_token_id=TOKENIZER.pad_token_id,
        ),
        ("c_attn", "c_proj", "c_fc"),
    ),
}  # fmt: skip


def write(folder: Path, config: PreTrainedConfig) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layers", ["all", "top:1"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_model_is_loaded_rendered_tuned_asked_saved_and_loaded_again(
    kind: str, layers: str, tmp_path: Path
) -> None:
    config, linears = KINDS[kind]
    base = write(tmp_path / "base", config)
    recipe = load_recipe(
        settings={
            "data": {"train": str(labelled_csv(tmp_path / "films.csv", 20))},
            "model": {"name": str(base)},
        },
        overrides=[
            "model.precision=float32", "tune.learning_rate=1e-2", f"tune.layers={layers}",
            "tune.epochs=2", "tune.batch_size=4",
        ],
    )  # fmt: skip
    session = open_session(prepare(recipe, Silent()), locate(recipe.model), Silent())
    adapted = {name.split(".lora_")[0] for name, _ in session.tunable.trained()}
    assert {name.rpartition(".")[2] for name in adapted} == set(linears)
    assert {part for name in adapted for part in name.split(".") if part.isdigit()} == (
        {"0", "1"} if layers == "all" else {"1"}
    )
    planned = trained_part(empty_model(config), recipe.tune)
    assert planned.parameters == session.tunable.parameter_counts()[0]
    train, validation, _ = render(session)
    folder = RunFolder(tmp_path / "run")
    tuning = fine_tune(session, train, validation, folder)
    assert tuning.history[-1]["epoch"] == 2
    # GPT-2 drops out at random, and Gemma 2 caps its attention softly.
    assert tuning.agreement.packed == (kind not in {"gpt2", "gemma2"}), tuning.agreement.reason
    assert tuning.cache.used == (layers == "top:1" and kind != "gpt2"), tuning.cache.reason
    proof = session.tunable.prove(tuning.gradients, tuning.best_step)
    assert len(proof.moved) == len(list(session.tunable.trained()))
    said = session.answer(session.tunable.model, session.prepared.parts.test, "asked")
    assert len(said.texts) == len(session.prepared.parts.test) > 0
    assert save(session, folder) == tmp_path / "run" / "adapter"
    again, tokenizer, _ = load_tuned(tmp_path / "run", recipe, 10**9)
    ids = torch.tensor([train[0].token_ids])
    with torch.no_grad():
        expected, found = session.tunable.model(ids).logits, again(ids).logits
        with session.tunable.as_base() as model:
            untuned = model(ids).logits
        write_merged(session.tunable.model, tmp_path)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
    assert torch.equal(found, expected)
    assert (merged - expected).abs().max() < 1e-4
    assert (expected - untuned).abs().max() > 1e-3
    assert tokenizer.chat_template == TOKENIZER.chat_template
