"""Trainings of two models of seven billion parameters."""

import pytest

from kilotune.planning.job import Job
from tests.support.planned import planned_job


@pytest.fixture(scope="module")
def whole() -> Job:
    return planned_job("qwen-7b")


@pytest.fixture(scope="module")
def top() -> Job:
    return planned_job("qwen2-vl-7b", layers="top:2")
