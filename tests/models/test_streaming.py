import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kilotune.errors import KilotuneError
from kilotune.models.checkpoint import Checkpoint
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.models.streaming import (
    load_streamed,
    streamed_below,
    streamed_layers,
)
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import LoraSettings, TuneSettings
from tests.support.families import FAMILIES
from tests.support.random_models import random_model

TOP = LoraSettings(learning_rate=1e-3, layers="top:1")
FLOAT = torch.float32


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A checkpoint whose every layer lies on several files, with a head of its own."""
    random_model("qwen3").save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 4
    return tmp_path / "shards"


def streamed(folder: Path, below: int = 3, dtype: torch.dtype = FLOAT) -> Any:
    return load_streamed(source_at(folder), dtype, below)


def whole(folder: Path, dtype: torch.dtype = FLOAT) -> Any:
    return source_at(folder).model(dtype)


def tuned(*overrides: str) -> TuneSettings:
    return load_recipe(settings={"data": {"train": "x.csv"}}, overrides=overrides).tune


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_streamed_model_computes_and_generates_as_the_whole_one(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    random_model(family).save_pretrained(tmp_path, max_shard_size="20KB")
    ids = torch.arange(20).reshape(2, 10)
    one, other = streamed(tmp_path, 3, dtype), whole(tmp_path, dtype)
    with torch.no_grad():
        assert torch.equal(one(ids).logits, other(ids).logits)
    settings = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(one.generate(ids, **settings), other.generate(ids, **settings))
    assert one.config.to_dict() == other.config.to_dict()
    assert one.generation_config.to_dict() == other.generation_config.to_dict()


def test_a_model_in_one_file_with_a_tied_head_is_streamed_too(tiny_model: Path) -> None:
    ids = torch.arange(10)[None]
    one = streamed(tiny_model, 2)
    assert one.lm_head.weight is one.model.embed_tokens.weight
    with torch.no_grad():
        assert torch.equal(one(ids).logits, whole(tiny_model)(ids).logits)


def test_only_the_top_has_parameters_in_memory(shards: Path) -> None:
    model = streamed(shards)
    assert [name for name, _ in streamed_layers(model)] == [f"model.layers.{i}" for i in range(3)]
    assert all(p.device.type == "cpu" for p in model.parameters())
    layers = {n.split(".")[2] for n, _ in model.named_parameters() if n.startswith("model.layers")}
    assert layers == {"3"}
    assert (
        Tunable(model, TOP, 0).parameter_counts()
        == Tunable(whole(shards), TOP, 0).parameter_counts()
    )


def test_held_weights_are_read_once_and_let_go(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = Checkpoint.load
    monkeypatch.setattr(
        Checkpoint, "load", lambda self, names, *a: reads.append(1) or read(self, names, *a)
    )
    model = streamed(shards)
    reads.clear()
    _, layer = streamed_layers(model)[0]
    ids = torch.arange(5)[None]
    with torch.no_grad(), layer.held(torch.device("cpu")):
        for _ in range(3):
            model(ids)
    assert len(reads) == 1 + 3 * 2  # the two layers that are not held, at every forward
    model(ids)
    assert len(reads) == 7 + 3


def test_the_proof_covers_what_stays_on_disk(shards: Path) -> None:
    one, other = (Tunable(model, TOP, seed=0) for model in (streamed(shards), whole(shards)))
    assert one.digests == other.digests
    path = next(p for p in sorted(shards.glob("*.safetensors")) if _holds(p, "layers.0.mlp"))
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(KilotuneError, match="frozen tensors changed"):
        one.prove()


def _holds(path: Path, part: str) -> bool:
    return part.encode() in path.read_bytes()[:2000]


def test_adapters_are_those_of_the_whole_model(shards: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    tunable = Tunable(streamed(shards), TOP, seed=0)
    other = Tunable(whole(shards), TOP, seed=0)
    for (name, mine), (known, theirs) in zip(tunable.trained(), other.trained(), strict=True):
        assert name == known
        assert torch.equal(mine, theirs)
    with torch.no_grad():
        for _, parameter in tunable.trained():
            parameter.add_(0.1)
    tunable.model.save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(shards)
    base = AutoModelForCausalLM.from_pretrained(shards, dtype=FLOAT)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, tunable.model(ids).logits)
        with tunable.as_base() as plain:
            assert torch.equal(plain(ids).logits, whole(shards)(ids).logits)


def test_only_what_does_not_fit_is_streamed_unless_asked(shards: Path) -> None:
    size = 4 * Checkpoint(str(shards)).parameters()
    assert size == 4 * sum(p.numel() for p in whole(shards).parameters())
    source = source_at(shards)
    top = tuned("tune.layers=top:1")
    assert streamed_below(source, top, FLOAT, size) == 0
    assert streamed_below(source, top, FLOAT, size - 1) == 3
    assert streamed_below(source, top, torch.bfloat16, size - 1) == 0
    assert streamed_below(source, tuned("tune.layers=all"), FLOAT, 0) == 0
    assert streamed_below(source, tuned("tune.layers=top:4"), FLOAT, 0) == 0
    never = tuned("tune.layers=top:1", "tune.streaming=never")
    assert streamed_below(source, never, FLOAT, 0) == 0
    always = tuned("tune.layers=top:3", "tune.streaming=always")
    assert streamed_below(source, always, FLOAT, 10 * size) == 1
    with pytest.raises(KilotuneError, match="there are none"):
        streamed_below(source, tuned("tune.streaming=always"), FLOAT, size)
    full = tuned("tune.method=top_layers", "tune.layers=top:1", "tune.streaming=always")
    with pytest.raises(KilotuneError, match="adapted"):
        streamed_below(source, full, FLOAT, size)


def test_checkpoints_that_cannot_be_streamed_are_refused(shards: Path) -> None:
    config = json.loads((shards / "config.json").read_text())
    (shards / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    index = shards / "model.safetensors.index.json"
    for part in shards.glob("*.safetensors"):
        moved = {f"other.{name}": tensor for name, tensor in load_file(part).items()}
        save_file(moved, part, {"format": "pt"})
    with pytest.raises(KilotuneError, match=r"no model\.embed_tokens\.weight"):
        streamed(shards)
    quantised = {**config, "quantization_config": {"quant_method": "fp8"}}
    (shards / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(KilotuneError, match="quantised"):
        streamed(shards)
    (shards / "config.json").write_text(json.dumps(config))
    index.unlink()
    with pytest.raises(KilotuneError, match="only safetensors"):
        streamed(shards)
    assert streamed_below(source_at(shards), tuned("tune.layers=top:1"), FLOAT, 0) == 0
