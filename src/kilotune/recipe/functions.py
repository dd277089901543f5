"""Functions of the user's own, which a recipe names by import path."""

import importlib
from collections.abc import Callable
from typing import Any

from kilotune.errors import KilotuneError


def own_function(path: str, where: str) -> Callable[..., Any]:
    """The user's function at `module:function`. Raises KilotuneError, naming `where`, for none."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise KilotuneError(
            f"cannot import it: {error}",
            where=where,
            fix="Write it as module:function, in a module that Python finds (PYTHONPATH)",
        ) from error
    if not callable(found):
        raise KilotuneError("this is no function", where=where, fix="Name a function")
    function: Callable[..., Any] = found
    return function
