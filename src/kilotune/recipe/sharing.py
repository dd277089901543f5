"""What others may see of a recipe: names of files and folders, and not where they lie here."""

import os
from pathlib import Path

import yaml

from kilotune.recipe.locations import relocated
from kilotune.recipe.schema import Location, Recipe


def shown_place(text: str) -> str:
    """The last part of a path on this machine; anything else, such as a hub id, as it is."""
    path = Path(os.path.expanduser(text))  # Path's own fails for users that are unknown
    here = path.is_absolute() or text.startswith((".", "~")) or path.exists()
    return path.resolve().name if here else text


def shown_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, without a path on this machine."""
    content = relocated(recipe.model_dump(), _shown)
    content["preset"] = shown_place(recipe.preset)  # who makes a recipe may call it anything
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _shown(text: str, location: Location) -> str:
    return shown_place(text) if location.or_name or location.names else Path(text).name
