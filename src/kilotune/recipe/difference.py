"""In which settings two recipes differ."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from kilotune.recipe.schema import Effect, Recipe, settings_of

# What decides what a run is. It may change where its files lie (what is in them is known by
# digests), who is told of it, how fast it is, and how its figures are made.
BINDING: set[Effect] = {"run", "answers", "method", "steps", "guesses", "choice"}

PARTS = {setting.name for setting in settings_of() if setting.affects is None}


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting before and after; None where a recipe has no such setting."""

    before: Any
    after: Any


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its full name, such as `tune.learning_rate`, in plain JSON values."""
    return _flat(recipe.model_dump(mode="json"), "")


def effects_of(name: str) -> frozenset[Effect]:
    """What the setting `name`, the one it lies in, or any in it affects; nothing if there is none.

    `model.template_arguments.x` lies in a setting, `decoding` is a part that holds some.
    """
    known, within = _effects(), name.rpartition(".")[0]
    if name in known or not within or within in PARTS:
        return known.get(name, frozenset())
    return effects_of(within)


def settings_affecting(recipe: Recipe, effects: Collection[Effect]) -> dict[str, Any]:
    """The settings, by full name, that have one of these `effects`."""
    flat = flat_settings(recipe)
    return {name: value for name, value in flat.items() if effects_of(name).intersection(effects)}


def binding_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what a run's weights and answers are, by name.

    Where unlabelled texts lie may change, and not whether there are any.
    """
    given = None if recipe.unlabeled.file is None else "a file"
    return {**settings_affecting(recipe, BINDING), "unlabeled.file": given}


def differences(before: Recipe, after: Recipe) -> dict[str, SettingChange]:
    """The settings that are not the same, by name."""
    first, second = flat_settings(before), flat_settings(after)
    names = [*first, *(name for name in second if name not in first)]
    return {
        name: SettingChange(first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name)
    }


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


@cache
def _effects() -> dict[str, frozenset[Effect]]:
    """Of each setting its effect, and of each part those of all settings in it."""
    found: dict[str, frozenset[Effect]] = {}
    for setting in settings_of():
        name = setting.name
        while setting.affects and name:
            found[name] = found.get(name, frozenset()) | {setting.affects}
            name = name.rpartition(".")[0]
    return found
