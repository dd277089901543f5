"""Arithmetic and time by their definitions; how near they come is measured, in docs/plan.md."""

import math
from dataclasses import replace

import pytest

from kilotune.planning import arithmetic
from kilotune.planning.arithmetic import (
    general_seconds,
    judging_seconds,
    reading_seconds,
    step_arithmetic,
)
from kilotune.planning.job import ExecutionPath, Job
from kilotune.planning.speed import Speed
from tests.support.planned import SPEED, WORK

PADDED, SHARED, CACHED = ExecutionPath.PADDED, ExecutionPath.SHARED, ExecutionPath.CACHED


def test_a_padded_steps_arithmetic_is_six_parts_in_four(whole: Job) -> None:
    step, tokens = step_arithmetic(whole, PADDED, 8)
    assert tokens == 8 * 200
    size = whole.size
    layers = 2 * 2 * size.products * tokens * 32
    attention = 3 * 4 * 4096 * 100 * tokens * 32
    adapters = 6 * whole.trained.parameters * tokens
    head = 4 * 151936 * 4096 * 3 * 8
    assert step == pytest.approx(layers + attention + adapters + head)


def test_a_shared_prefix_is_computed_once_a_micro_batch(whole: Job) -> None:
    assert step_arithmetic(whole, SHARED, 8)[1] == 150 + 8 * 50
    assert step_arithmetic(whole, SHARED, 2)[1] == 4 * (150 + 2 * 50)
    assert step_arithmetic(whole, SHARED, 1)[1] == step_arithmetic(whole, PADDED, 1)[1]


def test_cached_steps_compute_the_trained_layers_alone(top: Job) -> None:
    cached, tokens = step_arithmetic(top, CACHED, 8)
    shared, same = step_arithmetic(top, SHARED, 8)
    assert tokens == same
    below = 26 * tokens * (2 * top.size.products + 4 * top.size.queries * 100)
    assert shared - cached == pytest.approx(below)


def test_generating_takes_reading_and_every_token_of_every_batch(
    whole: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 times validation, twice the test, a sample of training; batches of 4,096 tokens.
    prompts = 5 * WORK.validation + 2 * WORK.test + 100
    rounds = math.ceil(prompts * WORK.longest / 4096) * WORK.answer
    at_once = judging_seconds(whole, Speed(math.inf, math.inf))
    assert at_once == pytest.approx(rounds * 32 * 0.5e-3)
    monkeypatch.setattr(arithmetic, "CALLING", 0.0)
    assert judging_seconds(whole, SPEED) == pytest.approx(
        2 * judging_seconds(whole, Speed(2e11, 2e10))
    )
    labels = replace(whole, work=replace(WORK, scored=500))
    more = judging_seconds(labels, SPEED) - judging_seconds(whole, SPEED)
    assert more == pytest.approx(reading_seconds(whole, 500 * (WORK.length - WORK.shared), SPEED))


def test_general_prompts_take_two_answers_and_two_readings(
    whole: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All hundred are one batch, of which both models write 32 tokens.
    assert general_seconds(whole, Speed(math.inf, math.inf)) == pytest.approx(2 * 32 * 32 * 0.5e-3)
    monkeypatch.setattr(arithmetic, "CALLING", 0.0)
    # Each model reads the prompts twice, and writes and reads the base model's answers.
    products = 2 * whole.size.products * whole.size.layers * 2 * 100 * (2 * 40 + 2 * 32)
    head = 2 * whole.size.vocabulary * whole.size.width * 2 * 100 * 2 * 32
    least = (products + head) / SPEED.products
    assert least < general_seconds(whole, SPEED) < 3 * least
