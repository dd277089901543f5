"""What a base model is called in what is made to be shared: never by its place on this machine."""

import json
from pathlib import Path

from kilotune.data.files.writers import to_json, write_atomically
from kilotune.models.builtin import ORIGINS
from kilotune.recipe.sharing import shown_place

ADAPTER_CONFIG, CARD = "adapter_config.json", "README.md"


def public_name(name: str) -> str:
    """The hub id of a model, or the name of its folder."""
    return ORIGINS[name][0] if name in ORIGINS else shown_place(name)


def on_hub(name: str) -> bool:
    """Whether libraries find the same weights by the public name of a model."""
    return name not in ORIGINS and shown_place(name) == name


def name_base(adapter: Path, name: str) -> None:
    """Have the saved adapter in the folder `adapter` name its base model in public.

    PEFT writes the folder it lies in, there and into a card that says nothing else.
    """
    (adapter / CARD).unlink(missing_ok=True)
    file = adapter / ADAPTER_CONFIG
    if file.exists():
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = public_name(name)
        if isinstance(settings.get("target_modules"), list):  # of a set, in any order
            settings["target_modules"].sort()
        write_atomically(file, to_json(settings) + "\n")
