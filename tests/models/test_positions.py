"""How long a text a model can be given, and what is longer."""

from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

import kilotune
from kilotune.errors import KilotuneError
from kilotune.models.positions import position_limit
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.workflows.plan import plan
from kilotune.workflows.render import render
from tests.support.tiny import byte_tokenizer

TOKENIZER = byte_tokenizer()
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER), "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 160,
    "eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id,
}  # fmt: skip
CONFIGS: dict[str, PreTrainedConfig] = {
    "learned": GPT2Config(
        **{**SIZES, "n_positions": 160, "max_position_embeddings": 160}, bos_token_id=None
    ),
    "rotary": LlamaConfig(**SIZES, intermediate_size=64),
}


def yarn(factor: float, most: int) -> Qwen2Config:
    rope = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": 100}
    return Qwen2Config(max_position_embeddings=most, rope_parameters={"rope_theta": 1e4, **rope})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (CONFIGS["learned"], 160),
        (CONFIGS["rotary"], 160),
        (yarn(4.0, 100), 400),  # the length before scaling, as Qwen's own instructions leave it
        (yarn(4.0, 400), 400),
        (BloomConfig(), None),  # no positions but distances
    ],
)
def test_the_limit_is_that_of_the_positions_as_they_are_scaled(
    config: PreTrainedConfig, limit: int | None
) -> None:
    assert position_limit(config) == limit


def recipe(tmp_path: Path, kind: str, *overrides: str) -> Recipe:
    model = AutoModelForCausalLM.from_config(CONFIGS[kind])
    model.save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    rows = [f"film {n} was {('great', 'awful')[n % 2]}" for n in range(40)]
    rows[7] += " and long" * 20
    lines = [f"{row},{('good', 'bad')[n % 2]}" for n, row in enumerate(rows)]
    file = tmp_path / "films.csv"
    file.write_text("\n".join(["text,label", *lines]) + "\n")
    return load_recipe(
        settings={"data": {"train": str(file)}, "model": {"name": str(tmp_path / "model")}},
        overrides=[
            "model.precision=float32", "tune.epochs=1", "data.system=", "data.question={text}",
            "judge.bootstrap_samples=20", *overrides,
        ],
    )  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_texts_beyond_the_positions_are_named_by_render_plan_and_run(
    kind: str, tmp_path: Path
) -> None:
    chosen = recipe(tmp_path, kind)
    findings = {finding.code: finding for finding in render(chosen).findings}
    assert findings["beyond-length"].rows == ("data:9",)
    for use in (lambda: plan(chosen), lambda: kilotune.run(chosen, tmp_path / "run")):
        with pytest.raises(KilotuneError, match=r"160 tokens.*data:9"):
            use()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_answer_needs_its_room_within_the_positions(kind: str, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, kind, "data.max_length=150", "decoding.max_new_tokens=1000000")
    said = "160 tokens, of which an answer may take 1000000"
    assert any(said in str(finding) for finding in render(chosen).findings)
    with pytest.raises(KilotuneError, match="has 160 positions for prompt and answer"):
        kilotune.run(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_that_are_scored_need_their_room_too(tmp_path: Path) -> None:
    """A label takes more than the one token that an answer may have."""
    chosen = recipe(tmp_path, "learned", "decoding.max_new_tokens=1", "data.max_length=158")
    findings = {finding.code: finding for finding in render(chosen).findings}
    assert findings["beyond-length"].rows == ("data:9",)
    with pytest.raises(KilotuneError, match=r"160 tokens, of which an answer may take.*data:9"):
        kilotune.run(chosen, tmp_path / "run")


def test_what_is_cut_to_fit_is_tuned_and_judged_to_the_end(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "learned", "data.max_length=140", "judge.base_check=say")
    assert render(chosen).findings
    assert "beyond-length" not in {finding.code for finding in render(chosen).findings}
    run = kilotune.run(chosen, tmp_path / "run")
    assert run.report.is_file()


def test_tokens_that_the_model_has_not_are_named_before_tuning(tmp_path: Path) -> None:
    chosen = recipe(tmp_path, "rotary", "data.max_length=140")
    tokenizer = byte_tokenizer(special=["<|endoftext|>", "<|im_end|>", "<|more|>", "<|im_start|>"])
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(tmp_path / "model")
    assert "beyond-vocabulary" in {finding.code for finding in render(chosen).findings}
    with pytest.raises(KilotuneError, match="259 of 259"):
        kilotune.run(chosen, tmp_path / "run")
