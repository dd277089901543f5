"""Python code that a recipe names: which settings do, and functions of the user's own."""

import importlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from kilotune.errors import KilotuneError

# The parts of a recipe that may name code, and those of them that a finished run's model needs.
PARTS = ("model", "augment", "unlabeled", "judge", "ablation")
MODEL = ("model",)

OWN = re.compile(r"[A-Za-z_][\w.]*:\w+")


def is_own(name: str) -> bool:
    """Whether `name` is the import path of a function, and no model."""
    return OWN.fullmatch(name) is not None


def named_code(tree: Mapping[str, Any], parts: Collection[str] = PARTS) -> tuple[str, ...]:
    """The settings in `parts` that name code, as `judge.metric=my_module:my_function`.

    `tree` is a recipe as nested mappings, whole or some settings of one.
    """
    return tuple(dict.fromkeys(_named({part: tree.get(part) for part in parts})))


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
        raise KilotuneError("not a function", where=where, fix="Name a function")
    function: Callable[..., Any] = found
    return function


def _named(tree: Mapping[str, Any]) -> Iterator[str]:
    if _group(tree, "model").get("trust_remote_code") not in (None, False):
        yield "model.trust_remote_code"
    for part in ("augment", "unlabeled"):
        for op in _operations(_group(tree, part).get("operations")):
            if ":" in op:
                yield f"{part}.operations={op}"
    judge = _group(tree, "judge")
    if judge.get("metric") is not None:
        yield f"judge.metric={judge['metric']}"
    if is_own(str(judge.get("model"))):
        yield f"judge.model={judge['model']}"
    for name, values in _group(_group(tree, "ablation"), "factors").items():
        for value in values if isinstance(values, list | tuple) else ():
            yield from (f"ablation.factors: {code}" for code in _named(_nested(name, value)))


def _group(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = tree.get(name)
    return group if isinstance(group, Mapping) else {}


def _operations(given: object) -> Iterator[str]:
    for each in given if isinstance(given, list | tuple) else ():
        yield str(each.get("op")) if isinstance(each, Mapping) else str(each)


def _nested(name: str, value: object) -> Mapping[str, Any]:
    """The setting of a full name, such as `judge.metric`, as a recipe holds it."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value if isinstance(value, Mapping) else {}
