"""Supervised fine-tuning on about a thousand labelled examples, with proof of each step.

Every command is a function here: `kilotune.run("reviews.csv")` does the whole job. `Recipe` holds
every setting of it, `load_recipe` reads one, and `load_examples(path)` reads a labelled file. They
are loaded on first use, so that importing kilotune (and `kilotune --help`) stays fast.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kilotune.data.normalise import load_examples
    from kilotune.errors import KilotuneError
    from kilotune.exports import export
    from kilotune.preparation.inspection import check
    from kilotune.recipe.load import load_recipe
    from kilotune.recipe.schema import Recipe
    from kilotune.runs.comparison import compare
    from kilotune.workflows.augment import augment
    from kilotune.workflows.chat import chat
    from kilotune.workflows.decode import decode
    from kilotune.workflows.interface import ablate, advise, plan, render, run
    from kilotune.workflows.predict import predict
    from kilotune.workflows.run import open_run, resume
    from kilotune.workflows.select import select
    from kilotune.workflows.verify import verify

__version__ = "0.1.0"

_HOMES = {
    "KilotuneError": "kilotune.errors",
    "Recipe": "kilotune.recipe.schema",
    "ablate": "kilotune.workflows.interface",
    "advise": "kilotune.workflows.interface",
    "augment": "kilotune.workflows.augment",
    "chat": "kilotune.workflows.chat",
    "check": "kilotune.preparation.inspection",
    "compare": "kilotune.runs.comparison",
    "decode": "kilotune.workflows.decode",
    "export": "kilotune.exports",
    "load_examples": "kilotune.data.normalise",
    "load_recipe": "kilotune.recipe.load",
    "open_run": "kilotune.workflows.run",
    "plan": "kilotune.workflows.interface",
    "predict": "kilotune.workflows.predict",
    "render": "kilotune.workflows.interface",
    "resume": "kilotune.workflows.run",
    "run": "kilotune.workflows.interface",
    "select": "kilotune.workflows.select",
    "verify": "kilotune.workflows.verify",
}

__all__ = [
    "KilotuneError",
    "Recipe",
    "__version__",
    "ablate",
    "advise",
    "augment",
    "chat",
    "check",
    "compare",
    "decode",
    "export",
    "load_examples",
    "load_recipe",
    "open_run",
    "plan",
    "predict",
    "render",
    "resume",
    "run",
    "select",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kilotune' has no attribute {name!r}")
    # Where it is installed peft imports it, whatever the model, and it misses a kernel of its own.
    kernels = logging.getLogger("bitsandbytes")
    level = kernels.level
    kernels.setLevel(logging.ERROR)
    try:
        return getattr(import_module(_HOMES[name]), name)
    finally:
        kernels.setLevel(level)
