"""Frozen weights in 4 and 8 bits, as far as a processor goes."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import kilotune
from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.models import quantisation
from kilotune.models.freeze import Tunable
from kilotune.models.quantisation import quantised
from kilotune.models.source import source_at
from kilotune.models.tuned_weights import load_tuned
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import LoraSettings, ModelSettings, TopLayersSettings
from tests.support.records import written
from tests.support.tiny import byte_tokenizer, labelled_csv

IDS = torch.arange(12)[None]
LORA = LoraSettings(learning_rate=1e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose widths are whole blocks of 64."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize(("quantization", "error"), [("nf4", 0.2), ("int8", 0.02)])
def test_quantised_weights_are_near_and_counted_in_full(
    base: Path, quantization: Any, error: float
) -> None:
    settings = ModelSettings(name=str(base), quantization=quantization)
    whole = source_at(base).model(torch.float32)
    model = source_at(base, settings).model(torch.float32)
    assert quantised(model)
    assert not quantised(whole)
    expected = logits(whole)
    relative = float((logits(model) - expected).norm() / expected.norm())
    assert 1e-4 < relative < error
    plain = Tunable(whole, LORA, seed=0).parameter_counts()
    assert Tunable(model, LORA, seed=0).parameter_counts() == plain


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_adapters_on_quantised_weights_go_through_the_whole_job(
    base: Path, tmp_path: Path, quantization: str
) -> None:
    data = {"train": str(labelled_csv(tmp_path / "films.csv"))}
    recipe = load_recipe(
        settings={"data": data, "model": {"name": str(base), "quantization": quantization}},
        overrides=["tune.learning_rate=1e-2", "tune.epochs=2", "judge.bootstrap_samples=100"],
    )
    run = kilotune.run(recipe, tmp_path / "run")
    proof = written(run.folder, "freeze_proof.json")
    assert (len(proof["moved"]), proof["unmoved"]) == (2 * 7 * 2, [])
    assert "base_model.model.model.layers.0.mlp.up_proj.base_layer.weight" in proof["frozen"]
    assert all(before == after for before, after in proof["frozen"].values())
    tuned, _, _ = load_tuned(run.folder, recipe, 10**9)
    assert quantised(tuned)
    merged = AutoModelForCausalLM.from_pretrained(export(run.folder, "merged", tmp_path / "m"))
    assert not quantised(merged)
    apart = (logits(merged).float() - logits(tuned).float()).norm() / logits(tuned).float().norm()
    assert float(apart) < 0.2


def test_what_cannot_be_quantised_says_what_to_do(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nf4 = ModelSettings(name=str(base), quantization="nf4")
    top = TopLayersSettings(method="top_layers", learning_rate=1e-3)
    with pytest.raises(KilotuneError, match="cannot be trained themselves"):
        source_at(base, nf4).check_quantisable(top)
    with pytest.raises(KilotuneError, match="cannot be streamed"):
        source_at(base, nf4).check_quantisable(LORA.model_copy(update={"streaming": "always"}))
    source_at(base, nf4).check_quantisable(LORA)
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    with pytest.raises(KilotuneError, match="bitsandbytes is not installed") as caught:
        quantisation.check_installed(nf4)
    quantisation.check_installed(ModelSettings(name=str(base)))
    assert caught.value.fix == "pip install 'kilotune[quantization]'"
    assert importlib.util.find_spec("bitsandbytes") is not None


def test_a_device_that_cannot_quantise_is_one_clear_error(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("None of the available devices\nmore")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    settings = ModelSettings(name=str(base), quantization="int8")
    with pytest.raises(KilotuneError, match=r"\(None of the available devices\)") as caught:
        source_at(base, settings).model(torch.float32)
    assert caught.value.fix.startswith("Set model.quantization=none")
