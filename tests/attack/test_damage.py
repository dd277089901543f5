"""Damaged, missing and other models: one line that names the file, before anything is made."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import kilotune
from kilotune.errors import KilotuneError
from kilotune.exports.forms import export
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.workflows.predict import predict
from tests.support.earlier import without_identity
from tests.support.tiny import byte_tokenizer, write_tiny_model

Damage = Callable[[Path], object]


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    always = ["model.precision=float32", "tune.learning_rate=1e-2", "judge.bootstrap_samples=50"]
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=[*always, *overrides])


def cut(name: str, size: float) -> Damage:
    """Keep so much of a file: a share of it, or so many bytes."""

    def damage(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * size if size < 1 else size)])

    return damage


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def settings(name: str = "config.json", **changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**known, **changes}))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        (file,) = folder.glob("*.safetensors")
        save_file(change(load_file(file)), file, {"format": "pt"})

    return damage


def header_only(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    raw = file.read_bytes()
    file.write_bytes(raw[: 8 + int.from_bytes(raw[:8], "little")])


def sharded(folder: Path, names: Callable[[dict[str, str]], object] = dict) -> None:
    """The weights in three parts, with an index of what `names` makes of the right one."""
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for part in range(3):
        file = f"model-{part}.safetensors"
        mine = {name: held[name] for name in sorted(held)[part::3]}
        save_file(mine, folder / file, {"format": "pt"})
        places |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": names(places)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def without_a_part(folder: Path) -> None:
    sharded(folder)
    (folder / "model-1.safetensors").unlink()


def a_part_without_a_tensor(folder: Path) -> None:
    sharded(folder)
    held = load_file(folder / "model-1.safetensors")
    held.popitem()
    save_file(held, folder / "model-1.safetensors", {"format": "pt"})


def broken_index(folder: Path) -> None:
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')


WEIGHTS, CONFIG = "model.safetensors", "config.json"
# What is done to a model's folder, and what the error names.
MODEL: dict[str, tuple[Damage, str]] = {
    "weights cut": (cut(WEIGHTS, 0.5), WEIGHTS),
    "weights empty": (cut(WEIGHTS, 0), WEIGHTS),
    "weights cut in the header": (cut(WEIGHTS, 100), WEIGHTS),
    "a header alone": (header_only, WEIGHTS),
    "a header of no tensor": (tensors(lambda held: {}), "the weights lack lm_head.weight"),
    "weights gone": (gone(WEIGHTS), WEIGHTS),
    "a tensor gone": (
        tensors(lambda held: {n: t for n, t in held.items() if n != "model.norm.weight"}),
        "model.safetensors: the weights lack model.norm.weight",
    ),
    "a layer gone": (
        tensors(lambda held: {n: t for n, t in held.items() if ".layers.1." not in n}),
        r"lack model\.layers\.1\.",
    ),
    "the embeddings gone": (
        tensors(lambda held: {n: t for n, t in held.items() if "embed" not in n}),
        r"lack lm_head\.weight, model\.embed_tokens\.weight",
    ),
    "other names": (
        tensors(lambda held: {f"other.{n}": t for n, t in held.items()}),
        r"they hold other\.model",
    ),
    "another shape": (
        tensors(lambda held: {**held, "model.norm.weight": torch.ones(33)}),
        r"model\.norm\.weight is 33, not 32",
    ),
    "more layers asked for": (settings(num_hidden_layers=4), r"lack model\.layers\.3\."),
    "another width asked for": (settings(intermediate_size=48), "64×32, not 48×32"),
    "config a list": (text(CONFIG, "[]"), CONFIG),
    "config cut": (cut(CONFIG, 0.5), CONFIG),
    "config of a wrong type": (settings(hidden_size="wide"), CONFIG),
    "config of none": (settings(num_attention_heads=None), CONFIG),
    "heads that do not divide": (settings(num_attention_heads=5), CONFIG),
    "no heads": (settings(num_attention_heads=0), CONFIG),
    "an unknown activation": (settings(hidden_act="none such"), CONFIG),
    "a vocabulary without the padding": (
        lambda folder: [
            tensors(lambda held: {**held, EMBEDDINGS: held[EMBEDDINGS][:250].clone()})(folder),
            settings(vocab_size=250)(folder),
        ],
        "250 tokens, and the tokenizer's pad_token is 256 and its eos_token is 258",
    ),
    "generation settings a list": (text("generation_config.json", "[]"), "generation_config"),
    "generation settings cut": (text("generation_config.json", "{"), "generation_config"),
    "an end that is no token": (
        settings("generation_config.json", eos_token_id="x"), "generation_config"
    ),
    "tokenizer cut": (cut("tokenizer.json", 0.5), "tokenizer.json"),
    "tokenizer a list": (text("tokenizer.json", "[]"), "tokenizer.json"),
    "tokenizer settings cut": (cut("tokenizer_config.json", 0.5), "tokenizer_config.json"),
    "a part gone": (without_a_part, "model-1.safetensors"),
    "a part without a tensor": (a_part_without_a_tensor, r"index\.json: the weights lack"),
    "a broken index": (broken_index, r"index\.json"),
    "an index of nothing": (
        lambda folder: sharded(folder, lambda places: list(places)), r"index\.json"
    ),
    "an index of other parts": (
        lambda folder: sharded(folder, lambda places: dict.fromkeys(places, "x.safetensors")),
        "x.safetensors",
    ),
}  # fmt: skip
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.mark.parametrize("damage", MODEL)
def test_a_damaged_model_stops_a_run_before_its_folder_is_made(
    damage: str, tiny_model: Path, labelled: Path, tmp_path: Path
) -> None:
    change, said = MODEL[damage]
    model = shutil.copytree(tiny_model, tmp_path / "model")
    change(model)
    with pytest.raises(KilotuneError, match=said) as caught:
        kilotune.run(recipe(labelled, model), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert not (tmp_path / "run").exists()


ADAPTER = "adapter_model.safetensors"
TUNED: dict[str, tuple[Damage, str]] = {
    "folder gone": (shutil.rmtree, "adapter|model"),
    "weights gone": (gone(ADAPTER), ADAPTER),
    "weights cut": (cut(ADAPTER, 0.5), ADAPTER),
    "weights empty": (cut(ADAPTER, 0), ADAPTER),
    "tensors gone": (
        tensors(lambda held: dict(list(held.items())[4:])), r"the adapter lacks base_model"
    ),
    "other names": (
        tensors(lambda held: {n.replace("layers.2", "layers.9"): t for n, t in held.items()}),
        "the adapter lacks|which the model does not have",
    ),
    "another shape": (
        tensors(lambda held: {n: t[:, :-1].clone() for n, t in held.items()}), "size mismatch"
    ),
    "not a number": (
        tensors(lambda held: {n: t * float("nan") for n, t in held.items()}), "not finite: base"
    ),
    "infinite": (
        tensors(lambda held: {n: t + float("inf") for n, t in held.items()}), "not finite: base"
    ),
    "settings a list": (text("adapter_config.json", "[]"), "adapter_config.json"),
    "settings cut": (cut("adapter_config.json", 0.5), "adapter_config.json"),
    "settings gone": (gone("adapter_config.json"), "adapter_config.json"),
    "settings of another kind": (settings("adapter_config.json", peft_type="X"), "adapter"),
    "another rank": (settings("adapter_config.json", r=3), "size mismatch"),
    "decoding a list": (text("generation_config.json", "[]"), "generation_config.json"),
    "decoding cut": (cut("generation_config.json", 0.5), "generation_config.json"),
    "decoding gone": (gone("generation_config.json"), "generation_config.json"),
    "tokenizer cut": (cut("tokenizer.json", 0.5), "tokenizer.json"),
}  # fmt: skip


@pytest.mark.parametrize("known", [True, False], ids=["recorded", "of an earlier version"])
@pytest.mark.parametrize("damage", TUNED)
def test_damaged_tuned_weights_are_refused_in_one_line(
    damage: str, known: bool, tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    change, said = TUNED[damage]
    run = shutil.copytree(tiny_run, tmp_path / "run")
    change(run / "adapter")
    if known:
        said = f"{said}|not the weights, settings and tokenizer that the run saved"
    else:
        without_identity(run)
    with pytest.raises(KilotuneError, match=said) as caught:
        predict(run, labelled, tmp_path / "out.csv")
    assert "\n" not in str(caught.value)
    assert f"kilotune run {run / 'recipe.yaml'}" in caught.value.fix
    assert not (tmp_path / "out.csv").exists()


def moved(run: Path, model: Path) -> Path:
    """A copy of `run` whose base is a copy of its model, which may be changed. Returns it."""
    recipe = run / "recipe.yaml"
    known = load_recipe(recipe).model.name
    recipe.write_text(recipe.read_text().replace(known, str(shutil.copytree(known, model))))
    return model


OTHERS: dict[str, tuple[Damage, str]] = {
    "weights": (
        lambda model: shutil.copy(
            write_tiny_model(model.parent / "other", seed=1) / WEIGHTS, model / WEIGHTS
        ),
        "different base weights",
    ),
    "one number": (
        tensors(lambda held: {**held, "model.norm.weight": held["model.norm.weight"] * 1.001}),
        "different base weights",
    ),
    "a layer more": (
        lambda model: write_tiny_model(model, layers=4, seed=0), "different base weights"
    ),
    "what the weights mean": (settings(rms_norm_eps=0.1), "different base model's config.json"),
    "tokenizer": (
        lambda model: byte_tokenizer(
            special=["<|im_end|>", "<|im_start|>", "<|endoftext|>"]
        ).save_pretrained(model),
        "tokenizer",
    ),
    "template": (
        lambda model: (model / "chat_template.jinja").write_text("{{ messages }}"),
        "different chat template",
    ),
}  # fmt: skip


@pytest.mark.parametrize("part", OTHERS)
def test_another_base_model_than_the_runs_is_refused(
    part: str, tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    change, said = OTHERS[part]
    run = shutil.copytree(tiny_run, tmp_path / "run")
    change(moved(run, tmp_path / "model"))
    stopped = shutil.copytree(run, tmp_path / "stopped")
    for name in ("verdict.json", "report.html"):
        (stopped / name).unlink()
    uses: list[Callable[[], object]] = [lambda: kilotune.resume(stopped)]
    others = [
        lambda: predict(run, labelled, tmp_path / "out.csv"),
        lambda: export(run, "adapter", tmp_path / "exported"),
    ]
    if part in ("tokenizer", "template"):  # which a finished run has of its own
        for use in others:
            use()
        shutil.rmtree(tmp_path / "exported")
        (tmp_path / "out.csv").unlink()
    else:
        uses += others
    for use in uses:
        with pytest.raises(KilotuneError, match=said) as caught:
            use()
        assert "Restore the model" in caught.value.fix
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "exported").exists()


def test_the_same_weights_in_other_files_are_the_same_model(
    tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    model = moved(run, tmp_path / "model")
    sharded(model)
    settings(_name_or_path="elsewhere", transformers_version="4.0")(model)
    predict(run, labelled, tmp_path / "out.csv")
    predict(tiny_run, labelled, tmp_path / "plain.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()


def test_a_run_that_ended_in_weights_that_are_not_finite_says_so(
    tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    from kilotune.models.identity import tuned_digest
    from kilotune.runs.record import RunFolder

    run = shutil.copytree(tiny_run, tmp_path / "run")
    TUNED["not a number"][0](run / "adapter")
    RunFolder(run).note_identity(tuned=tuned_digest(run / "adapter"))
    for use in (
        lambda: predict(run, labelled, tmp_path / "out.csv"),
        lambda: export(run, "merged", tmp_path / "exported"),
    ):
        with pytest.raises(KilotuneError, match="the run ended in such weights"):
            use()


def test_how_a_tuned_model_decodes_may_be_changed(
    tiny_run: Path, labelled: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    settings("generation_config.json", max_new_tokens=3)(run / "adapter")
    assert predict(run, labelled, tmp_path / "out.csv").rows == 40
