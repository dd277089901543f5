"""In which settings two recipes differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kilotune.recipe.schema import Recipe

# What a run may change and still be the same: where its files lie (what is in them is known by
# digests), who is told of it, how fast it is, and how its figures are made.
FREE = (
    "preset", "model.name", "model.chat_template", "data.train", "data.validation", "data.test",
    "augment.wordnet", "augment.synonyms", "augment.masked", "augment.embedding",
    "augment.translators", "unlabeled.file", "judge.", "ablation.", "tune.report_to", "tune.cache",
    "tune.cache_limit_gb", "tune.streaming", "tune.micro_batch_size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One setting before and after; None where a recipe has no such setting."""

    before: Any
    after: Any


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting by its full name, such as `tune.learning_rate`, in plain JSON values."""
    return _flat(recipe.model_dump(mode="json"), "")


def binding_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide what a run's weights and answers are, by name."""
    return {
        name: value
        for name, value in flat_settings(recipe).items()
        if name not in FREE and not name.startswith(tuple(f for f in FREE if f.endswith(".")))
    }


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
