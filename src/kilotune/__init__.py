"""Supervised fine-tuning on about a thousand labelled examples, with proof of each step.

`kilotune.run(recipe)` does the whole job; `Recipe` holds every setting of it and
`load_examples(path)` reads a labelled file. They are loaded on first use, so that importing
kilotune (and `kilotune --help`) stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kilotune.data.normalise import load_examples
    from kilotune.pipeline import resume, run
    from kilotune.recipe.load import load_recipe
    from kilotune.recipe.schema import Recipe

__version__ = "0.1.0"

__all__ = ["Recipe", "__version__", "load_examples", "load_recipe", "resume", "run"]

_HOMES = {
    "Recipe": "kilotune.recipe.schema",
    "load_examples": "kilotune.data.normalise",
    "load_recipe": "kilotune.recipe.load",
    "resume": "kilotune.pipeline",
    "run": "kilotune.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kilotune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
