"""What others may see of a recipe: names of files and folders, and not where they lie here."""

import os
from pathlib import Path
from typing import Any

import yaml

from kilotune.recipe.load import PATHS
from kilotune.recipe.schema import Recipe

# Settings that are paths; among the values that an ablation tries they are still texts.
FILES = {f"{part}.{name}" for part, names in PATHS.items() for name in names}
# Settings that are texts and may name a file or a folder.
PLACES = {
    "preset", "model.name", "model.chat_template", "judge.model", "augment.masked",
    "augment.embedding", "augment.translators",
}  # fmt: skip


def shown_place(text: str) -> str:
    """The last part of a path on this machine; anything else, such as a hub id, as it is."""
    path = Path(os.path.expanduser(text))  # Path's own fails for users that are unknown
    here = path.is_absolute() or text.startswith((".", "~")) or path.exists()
    return path.resolve().name if here else text


def shown_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, without a path on this machine."""
    content = _shown(recipe.model_dump(), "")
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _shown(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _shown(item, f"{name}.{key}".removeprefix(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item, name) for item in value]
    name = name.removeprefix("ablation.factors.")
    if isinstance(value, Path) or (isinstance(value, str) and name in FILES):
        return Path(value).name
    return shown_place(value) if isinstance(value, str) and name in PLACES else value
