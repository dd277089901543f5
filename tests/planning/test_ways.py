"""Memory and micro-batch of each way, by their definitions."""

from dataclasses import replace

import pytest

from kilotune.planning.job import ExecutionPath, Job
from kilotune.planning.speed import ACCELERATORS, Speed
from kilotune.planning.ways import Machine, cache_bytes, fit, memory_of, way_of
from kilotune.training.memory import Overhead
from tests.support.planned import SPEED, WORK, planned_job

PADDED, SHARED = ExecutionPath.PADDED, ExecutionPath.SHARED
CACHED, STREAMED = ExecutionPath.CACHED, ExecutionPath.STREAMED


BARE = Overhead(0, 1.0)


def machine(speed: Speed = SPEED, overhead: Overhead = BARE) -> Machine:
    return Machine(speed, 10**12, overhead, 2)


def test_the_cache_holds_every_token_of_training_and_validation(top: Job, whole: Job) -> None:
    assert cache_bytes(top, 2) == 400 * 200 * 3584 * 2
    assert cache_bytes(whole, 2) == 0


def test_paths_are_those_that_a_run_may_take(top: Job, whole: Job) -> None:
    assert whole.paths() == [PADDED, SHARED]
    assert top.paths() == list(ExecutionPath)
    # Examples that share nothing are packed too; with dropout none are.
    assert planned_job("qwen-7b", replace(WORK, shared=0)).paths() == [PADDED, SHARED]
    assert planned_job("qwen-7b", lora_dropout=0.1).paths() == [PADDED]
    dropping = planned_job("qwen2-vl-7b", layers="top:2", lora_dropout=0.1)
    assert dropping.paths() == [PADDED, CACHED, STREAMED]
    assert not any(map(dropping.packed, dropping.paths()))
    assert replace(top, quantization="nf4").paths() == [PADDED, SHARED, CACHED]


def test_streaming_leaves_all_but_one_lower_layer_on_disk(top: Job) -> None:
    cached, streamed = (memory_of(top, path, machine(), 4) for path in (CACHED, STREAMED))
    assert cached.weights == 2 * 8_291_375_616
    assert cached.weights - streamed.weights == 25 * top.size.layer_parameters * 2
    assert cached.activations == streamed.activations


def test_training_state_is_weights_gradient_two_moments_and_the_start(whole: Job) -> None:
    memory = memory_of(whole, PADDED, machine(overhead=Overhead(7, 1.0)), 1)
    assert memory.trained == 19_988_480 * 20
    assert memory.total == 7 + sum(
        (memory.weights, memory.trained, memory.activations, memory.passing)
    )


def test_a_card_takes_the_largest_micro_batch_that_fits(top: Job) -> None:
    whole = planned_job("qwen-7b", replace(WORK, longest=400))
    fits = [fit(whole, card) for card in ACCELERATORS]
    for card, found in zip(ACCELERATORS, fits, strict=True):
        assert found.way is not None
        assert found.needed == found.way.memory.total <= card.memory
        assert found.way.name == SHARED
    sizes = [found.way.micro_batch for found in fits if found.way]
    assert sizes == sorted(sizes)
    assert sizes[0] < 8
    small = replace(ACCELERATORS[0], memory=12e9)
    assert fit(whole, small).way is None
    assert fit(whole, small).needed > 12e9
    streamed = fit(top, small).way
    assert streamed is not None
    assert streamed.name == STREAMED


def test_features_of_images_are_kept_where_no_part_that_sees_is_trained(top: Job) -> None:
    seeing = replace(top, work=replace(WORK, images=10, image_tokens=2560))
    assert memory_of(seeing, CACHED, machine(), 1).features == 2560 * 3584 * 2
    parts = planned_job("qwen2-vl-7b", seeing.work, parts=["language", "vision"])
    assert memory_of(parts, PADDED, machine(), 1).features == 0


def test_steps_and_time_follow_the_recipe(whole: Job) -> None:
    assert whole.steps == 120
    assert planned_job("qwen-7b", batch_size=16, epochs=1.5).steps == 30
    way = way_of(whole, SHARED, machine(SPEED))
    assert way.training_seconds == pytest.approx(120 * way.step_seconds)
    assert way.step_seconds > way.step / SPEED.products
    padded = way_of(whole, PADDED, machine(SPEED))
    plain = way_of(planned_job("qwen-7b", replace(WORK, longest=200)), PADDED, machine(SPEED))
    assert padded.step == plain.step
    assert padded.step_seconds == pytest.approx(plain.step_seconds * (200 + 20 * 7 / 9) / 200)
    faster = way_of(whole, SHARED, machine(Speed(2e11, 2e10)))
    assert way.step_seconds == pytest.approx(2 * faster.step_seconds)
