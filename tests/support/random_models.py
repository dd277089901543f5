"""The families' models with other settings, and without adapters."""

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tests.support.families import FAMILIES


def random_model(family: str, **settings: Any) -> Any:
    """A model of `family` with 4 layers in float32, the same at every call."""
    config = copy.deepcopy(FAMILIES[family])
    for name, value in settings.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
