"""The plan's terms by their definitions; how near they come is measured, in docs/plan.md."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import kilotune.workflows.plan
from kilotune.models.freeze import Tunable
from kilotune.models.size import empty_model, model_size, trained_part
from kilotune.models.source import locate_config, source_at
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import LoraSettings, ModelSettings, Recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import collate
from kilotune.workflows.plan import (
    ACCELERATORS,
    Job,
    Overhead,
    Speed,
    Work,
    measure_speed,
    measure_work,
    plan,
)

CONFIGS = Path(__file__).parents[1] / "support" / "configs"
WORK = Work(
    train=320, validation=80, test=100, length=200, longest=220, shared=150, answer=3, counted=True
)
SPEED = Speed(1e11, 1e10)
BARE = Overhead(0, 1.0)


def job(name: str, work: Work = WORK, **settings: Any) -> Job:
    tune = LoraSettings(learning_rate=1e-3, **settings)
    config = locate_config(ModelSettings(name=str(CONFIGS / f"{name}.json"))).config
    size = model_size(empty_model(config))
    return Job(size, trained_part(empty_model(config), tune), work, tune)


@pytest.fixture(scope="module")
def whole() -> Job:
    return job("qwen-7b")


@pytest.fixture(scope="module")
def top() -> Job:
    return job("qwen2-vl-7b", layers="top:2")


def recipe(data: Path, model: Path, *overrides: str) -> Recipe:
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(settings=settings, overrides=overrides)


def test_a_padded_steps_arithmetic_is_six_parts_in_four(whole: Job) -> None:
    step, tokens = whole.step("padded", 8)
    assert tokens == 8 * 200
    size = whole.size
    layers = 2 * 2 * size.products * tokens * 32
    attention = 3 * 4 * 4096 * 100 * tokens * 32
    adapters = 6 * whole.trained.parameters * tokens
    head = 4 * 151936 * 4096 * 3 * 8
    assert step == pytest.approx(layers + attention + adapters + head)


def test_a_shared_prefix_is_computed_once_a_micro_batch(whole: Job) -> None:
    assert whole.step("shared", 8)[1] == 150 + 8 * 50
    assert whole.step("shared", 2)[1] == 4 * (150 + 2 * 50)
    assert whole.step("shared", 1)[1] == whole.step("padded", 1)[1]


def test_cached_steps_compute_the_trained_layers_alone(top: Job) -> None:
    cached, tokens = top.step("cached", 8)
    shared, same = top.step("shared", 8)
    assert tokens == same
    below = 26 * tokens * (2 * top.size.products + 4 * top.size.queries * 100)
    assert shared - cached == pytest.approx(below)


def test_the_cache_holds_every_token_of_training_and_validation(top: Job, whole: Job) -> None:
    assert top.cache_bytes(2) == 400 * 200 * 3584 * 2
    assert whole.cache_bytes(2) == 0
    assert whole.names() == ["padded", "shared"]
    assert top.names() == ["padded", "shared", "cached", "streamed"]
    assert job("qwen-7b", replace(WORK, shared=3)).names() == ["padded"]


def test_streaming_leaves_all_but_one_lower_layer_on_disk(top: Job) -> None:
    cached, streamed = (top.memory(name, 4, BARE, 2) for name in ("cached", "streamed"))
    assert cached.weights == 2 * 8_291_375_616
    assert cached.weights - streamed.weights == 25 * top.size.layer_parameters * 2
    assert cached.activations == streamed.activations


def test_training_state_is_weights_gradient_two_moments_and_the_start(whole: Job) -> None:
    memory = whole.memory("padded", 1, Overhead(7, 1.0), 2)
    assert memory.trained == 19_988_480 * 20
    assert memory.total == 7 + sum(
        (memory.weights, memory.trained, memory.activations, memory.passing)
    )


def test_a_card_takes_the_largest_micro_batch_that_fits(top: Job) -> None:
    whole = job("qwen-7b", replace(WORK, longest=400))
    fits = [whole.fit(card) for card in ACCELERATORS]
    for card, fit in zip(ACCELERATORS, fits, strict=True):
        assert fit.way is not None
        assert fit.needed == fit.way.memory_bytes <= card.memory
        assert fit.way.name == "shared"
    sizes = [fit.way.micro_batch for fit in fits if fit.way]
    assert sizes == sorted(sizes)
    assert sizes[0] < 8
    small = replace(ACCELERATORS[0], memory=12e9)
    assert whole.fit(small).way is None
    assert whole.fit(small).needed > 12e9
    streamed = top.fit(small).way
    assert streamed is not None
    assert streamed.name == "streamed"


def test_steps_and_time_follow_the_recipe(whole: Job) -> None:
    assert whole.steps == 120
    assert job("qwen-7b", batch_size=16, epochs=1.5).steps == 30
    way = whole.way("shared", SPEED, 10**12, BARE, 2)
    assert way.training_seconds == pytest.approx(120 * way.step_seconds)
    assert way.step_seconds > way.step / SPEED.products
    padded = whole.way("padded", SPEED, 10**12, BARE, 2)
    plain = job("qwen-7b", replace(WORK, longest=200)).way("padded", SPEED, 10**12, BARE, 2)
    assert padded.step == plain.step
    assert padded.step_seconds == pytest.approx(plain.step_seconds * (200 + 20 * 7 / 9) / 200)
    faster = whole.way("shared", Speed(2e11, 2e10), 10**12, BARE, 2)
    assert way.step_seconds == pytest.approx(2 * faster.step_seconds)


def test_generating_takes_reading_and_every_token_of_every_batch(
    whole: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 times validation, twice the test, a sample of training; batches of 4,096 tokens.
    prompts = 5 * WORK.validation + 2 * WORK.test + 100
    rounds = math.ceil(prompts * WORK.longest / 4096) * WORK.answer
    at_once = whole.judging_seconds(Speed(math.inf, math.inf))
    assert at_once == pytest.approx(rounds * 32 * 0.5e-3)
    monkeypatch.setattr(kilotune.workflows.plan, "CALLING", 0.0)
    assert whole.judging_seconds(SPEED) == pytest.approx(
        2 * whole.judging_seconds(Speed(2e11, 2e10))
    )
    labels = replace(whole, work=replace(WORK, scored=500))
    more = labels.judging_seconds(SPEED) - whole.judging_seconds(SPEED)
    assert more == pytest.approx(whole._reading(500 * (WORK.length - WORK.shared), SPEED))


def test_general_prompts_take_two_answers_and_two_readings(
    whole: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All hundred are one batch, of which both models write 32 tokens.
    assert whole.general_seconds(Speed(math.inf, math.inf)) == pytest.approx(2 * 32 * 32 * 0.5e-3)
    monkeypatch.setattr(kilotune.workflows.plan, "CALLING", 0.0)
    # Each model reads the prompts twice, and writes and reads the base model's answers.
    products = 2 * whole.size.products * whole.size.layers * 2 * 100 * (2 * 40 + 2 * 32)
    head = 2 * whole.size.vocabulary * whole.size.width * 2 * 100 * 2 * 32
    least = (products + head) / SPEED.products
    assert least < whole.general_seconds(SPEED) < 3 * least


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_bytes_are_what_autograd_saves(smollm2_shape: Any, precision: str) -> None:
    model, dtype = smollm2_shape, getattr(torch, precision)
    size = model_size(model)
    tunable = Tunable(model.to(dtype), LoraSettings(learning_rate=1e-3), seed=0)
    renderings = [
        Rendering(str(n), tuple(range(n)), (False,) * (n - 2) + (True,) * 2, n - 2)
        for n in (64, 60)
    ]
    saved: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in tunable.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = collate(renderings, 0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = tunable.model(**inputs, logits_to_keep=1, use_cache=False)
    tune = LoraSettings(learning_rate=1e-3)
    work = replace(WORK, length=64, longest=64, shared=0)
    part = trained_part(empty_model(model.config), tune)
    planned = Job(size, part, work, tune).memory("padded", 2, BARE, dtype.itemsize)
    assert out.logits.shape[1] == 1
    assert planned.activations == pytest.approx(sum(saved.values()), rel=0.07)


@pytest.fixture
def smollm2_shape() -> Any:
    """SmolLM2's proportions in twelve layers of a third of its width."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=300, hidden_size=192, intermediate_size=512, num_hidden_layers=12,
        num_attention_heads=3, num_key_value_heads=1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def work_of(recipe: Recipe) -> Work:
    return measure_work(prepare(recipe, Silent()), locate_config(recipe.model))


def test_lengths_are_counted_with_the_models_tokenizer(labelled: Path, tiny_model: Path) -> None:
    work = work_of(recipe(labelled, tiny_model))
    assert work.counted
    assert work.train + work.validation + work.test == 40
    # The byte tokenizer makes a token of every byte: "good" or "bad", and the end.
    assert work.answer == pytest.approx(4.5, abs=0.1)
    assert work.shared > 80
    assert work.shared < work.length < work.longest


def test_without_a_tokenizer_lengths_are_estimated_and_said(labelled: Path) -> None:
    work = work_of(recipe(labelled, CONFIGS / "qwen-7b.json"))
    assert not work.counted
    assert 20 < work.shared < work.length < 60


def test_a_plan_of_a_tiny_model_loads_no_weights(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = []

    def measured(*arguments: Any) -> Speed:
        speeds.append(measure_speed(*arguments, seconds=0.01))
        return speeds[-1]

    monkeypatch.setattr(kilotune.workflows.plan, "measure_speed", measured)
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    overrides = ["tune.layers=top:1", "model.precision=float32", "tune.epochs=1"]
    made = plan(recipe(labelled, tmp_path, *overrides))
    real = source_at(tiny_model).model(torch.float32)
    assert made.size == model_size(real)
    assert speeds == [made.speed]
    assert min(made.speed.products, made.speed.elements) > 1e6
    assert [way.name for way in made.ways] == ["padded", "shared", "cached", "streamed"]
    assert made.ways[2].step < made.ways[1].step < made.ways[0].step
    assert made.cache_bytes == int((made.work.train + made.work.validation)
                                   * made.work.length * 32 * 4)  # fmt: skip
    assert all(fit.way is not None and fit.way.name != "streamed" for fit in made.accelerators)
