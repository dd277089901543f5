"""The other ways to tune, each through the whole job: tuned, saved, asked again, exported."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

import kilotune
from kilotune.exports import export
from kilotune.models.tuned_weights import load_tuned
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from kilotune.workflows.predict import predict
from tests.support.records import written
from tests.support.tiny import byte_tokenizer, labelled_csv

IDS = torch.arange(10)[None]


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen 2 of two layers: it has biases."""
    folder = tmp_path_factory.mktemp("biased")
    tokenizer = byte_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("settings", "saved", "moved"),
    [
        (["tune.method=dora", "tune.target_modules=[q_proj]"], "adapter", 2 * 3),
        (["tune.method=bitfit"], "model", 2 * 3),
        (["tune.layers=top:1", "tune.trainable=[model.norm.*, '*.bias']"], "model", 14 + 1 + 6),
        (["tune.target_modules=[q_proj]", "tune.frozen=['*lora_A*']"], "adapter", 2),
    ],
    ids=["dora", "bitfit", "lora and more", "lora without A"],
)
def test_a_method_is_tuned_saved_asked_again_and_merged(
    biased: Path, tmp_path: Path, settings: list[str], saved: str, moved: int
) -> None:
    always = [
        "model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=2",
        "judge.bootstrap_samples=100", *settings,
    ]  # fmt: skip
    data = {"train": str(labelled_csv(tmp_path / "films.csv"))}
    recipe = load_recipe(settings={"data": data, "model": {"name": str(biased)}}, overrides=always)
    run = kilotune.run(recipe, tmp_path / "run")
    folder = RunFolder(run.folder)
    proof = written(folder, "freeze_proof.json")
    assert (len(proof["moved"]), proof["unmoved"]) == (moved, [])
    assert set(proof["first_gradient"]) == set(proof["moved"])
    assert run.weights.name == saved
    file = labelled_csv(tmp_path / "again.csv")
    predict(run.folder, file, tmp_path / "answered.jsonl")
    assert len((tmp_path / "answered.jsonl").read_text().splitlines()) == 40
    with torch.no_grad():
        tuned = load_tuned(run.folder, folder.read_recipe(), 10**9)[0](IDS).logits
        merged = AutoModelForCausalLM.from_pretrained(export(run.folder, "merged", tmp_path / "m"))
        base = AutoModelForCausalLM.from_pretrained(biased)
        assert (merged(IDS).logits - tuned).abs().max() < 1e-4
        assert (base(IDS).logits - tuned).abs().max() > 1e-3
