"""What tells one model from another, and what does not."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kilotune.errors import KilotuneError
from kilotune.models.identity import check_identity, identify, weights_digest
from kilotune.models.source import source_at
from kilotune.recipe.schema import ModelSettings
from tests.support.first_qwen import write_tiny_qwen


def test_weights_are_their_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    base = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = [
        {**base, "a": torch.arange(6.0).reshape(2, 3)},
        {**base, "a": torch.arange(6.0).view(torch.int32)},
        {**base, "b": torch.ones(2) * 2},
        {"a": base["a"], "c": base["b"]},
        {"a": base["a"]},
    ]
    digests = []
    for number, held in enumerate([base, *others]):
        save_file(held, tmp_path / f"{number}.safetensors")
        digests.append(weights_digest([tmp_path / f"{number}.safetensors"]))
    assert len(set(digests)) == 6
    parts = [tmp_path / "x.safetensors", tmp_path / "y.safetensors"]
    for part, name in zip(parts, "ba", strict=True):
        save_file({name: base[name]}, part, {"format": "pt"})
    assert weights_digest(parts) == digests[0]


def test_what_a_model_is_called_within_its_base_and_a_tied_head_make_no_other(
    tiny_model: Path, tmp_path: Path
) -> None:
    held = load_file(tiny_model / "model.safetensors")
    head = held["model.embed_tokens.weight"].clone()
    same = [
        {name.removeprefix("model."): tensor for name, tensor in held.items()},
        {**held, "lm_head.weight": head},
    ]
    others = [{**held, "lm_head.weight": head + 1}, {**held, "model.norm.weight": head[0]}]
    digests = [weights_digest([tiny_model / "model.safetensors"])]
    for number, tensors in enumerate([*same, *others]):
        save_file(tensors, tmp_path / f"{number}.safetensors")
        digests.append(weights_digest([tmp_path / f"{number}.safetensors"]))
    assert digests[0] == digests[1] == digests[2]
    assert len({*digests}) == 3


def test_the_template_is_its_text_wherever_it_stands(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    file = folder / "chat_template.jinja"
    known = json.loads((folder / "tokenizer_config.json").read_text())
    known["chat_template"] = file.read_text()
    file.unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(known))
    assert identify(source_at(folder)) == identify(source_at(tiny_model))


def test_the_recipes_template_counts_where_it_names_one(tiny_model: Path, tmp_path: Path) -> None:
    named = tmp_path / "mine.jinja"
    digests = []
    for text in ("one", "two"):
        named.write_text(text)
        settings = ModelSettings(chat_template=str(named))
        digests.append(identify(source_at(tiny_model, settings)).chat_template)
    assert len({*digests, identify(source_at(tiny_model)).chat_template}) == 3


def test_checkpoints_of_other_forms_have_identities_too(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    digests = set()
    for extra in ({}, {"x": torch.ones(1)}):
        torch.save(held | extra, folder / "pytorch_model.bin")
        digests.add(identify(source_at(folder)).weights)
    assert len(digests) == 2
    qwens = [write_tiny_qwen(tmp_path / f"q{seed}", index=False, seed=seed) for seed in (0, 1)]
    one, other = (identify(source_at(qwen)) for qwen in qwens)
    assert one.weights != other.weights
    assert one.tokenizer == other.tokenizer


def test_what_is_not_on_record_is_not_compared_and_what_differs_is_named(tiny_model: Path) -> None:
    now = identify(source_at(tiny_model))
    check_identity({}, now, "model", Path("run"))
    check_identity(asdict(now) | {"recipe": "0", "tuned": "0"}, now, "model", Path("run"))
    changed = asdict(now) | {"tokenizer": "0123456789abcdef"}
    with pytest.raises(KilotuneError, match=r"different tokenizer \(.*, and was 0123456789ab\)"):
        check_identity(changed, now, "model", Path("run"))
