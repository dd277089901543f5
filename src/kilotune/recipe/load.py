"""From YAML, a preset and `--set` arguments to one Recipe, and back."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from kilotune.errors import KilotuneError
from kilotune.recipe.problems import METHODS, problems
from kilotune.recipe.schema import TEMPLATES, Recipe, TuneSettings

Tree = dict[str, Any]

# Settings that are paths, relative to the file they stand in.
PATHS = {
    "data": ("train", "validation", "test"),
    "augment": ("wordnet", "synonyms"),
    "unlabeled": ("file",),
}


def presets() -> list[str]:
    """The names of the recipes that ship with kilotune."""
    folder = files("kilotune.recipe") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir())


def load_recipe(
    path: Path | None = None,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> Recipe:
    """Build a recipe: the preset, over it the file, over it `settings`, over it `overrides`.

    `path` is a YAML file and may name its own `preset`; `settings` is a nested mapping;
    `overrides` are `a.b=value` strings as given to `--set`. Paths inside a file are relative to
    that file. Raises KilotuneError that names every wrong field at once.
    """
    tree = _read(path) if path else {}
    overrides = list(overrides)
    layers = [tree, settings or {}, *map(_override, overrides)]
    name = preset or tree.get("preset") or "auto"
    for layer in layers[1:]:
        name = layer.get("preset", name)
    base = _preset(name)
    # A file may switch to another method, whose fields the preset's method does not know.
    for layer in layers:
        tune = layer.get("tune")
        method = tune.get("method") if isinstance(tune, dict) else None
        if method and isinstance(base["tune"], dict):
            base["tune"] = _known_to(method, base["tune"])
        base = _merge(base, layer)
    base["preset"] = name
    try:
        return Recipe.model_validate(base)
    except ValidationError as error:
        raise _refusal(problems(error), path, {text.split("=")[0] for text in overrides}) from error


def recipe_for(
    source: Path,
    *,
    data: Mapping[str, Any],
    model: Mapping[str, str | None] = MappingProxyType({}),
    unlabeled: Path | None = None,
    preset: str | None = None,
    overrides: Iterable[str] = (),
) -> Recipe:
    """The recipe in `source` (.yaml), or one for the labelled file `source`.

    `data` and `model` give settings of those parts, `unlabeled` the file of that one; those that
    are None are as if not given. Raises KilotuneError that names every wrong field at once.
    """
    given = {key: value for key, value in data.items() if value is not None}
    named = {key: value for key, value in model.items() if value is not None}
    is_recipe = source.suffix.lower() in {".yaml", ".yml"}
    if not is_recipe:
        given["train"] = source
    tree: Tree = {"data": given, "model": named}
    if unlabeled is not None:
        tree["unlabeled"] = {"file": unlabeled}
    path = source if is_recipe else None
    return load_recipe(path, preset=preset, settings=tree, overrides=overrides)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting spelled out."""
    tree = recipe.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _known_to(method: object, tune: Tree) -> Tree:
    """Of the settings `tune` those that `method` shares with the one they were made for."""
    if METHODS.get(str(method)) is METHODS.get(tune.get("method", "")):
        return tune
    return {name: value for name, value in tune.items() if name in TuneSettings.model_fields}


def _preset(name: str) -> Tree:
    source = files("kilotune.recipe") / "presets" / f"{name}.yaml"
    if name not in presets():
        raise KilotuneError(f"no preset '{name}'", fix=f"Choose one of: {', '.join(presets())}")
    tree: Tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    return tree


def _read(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise KilotuneError("no such recipe", where=str(path), fix="Check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        raise KilotuneError(
            "not valid YAML", where=where, fix="Check indentation and quoting there"
        ) from error
    if not isinstance(tree, dict):
        raise KilotuneError("a recipe is a YAML mapping", where=str(path), fix="See docs/recipe.md")
    for part, keys in PATHS.items():
        settings = tree.get(part)
        if isinstance(settings, dict):
            for key in keys:
                if isinstance(settings.get(key), str):
                    settings[key] = str(path.parent / settings[key])
    model = tree.get("model")
    if isinstance(model, dict) and model.get("chat_template", "auto") not in TEMPLATES:
        model["chat_template"] = str(path.parent / str(model["chat_template"]))
    return tree


def _override(argument: str) -> Tree:
    key, equals, text = argument.partition("=")
    if not equals or not all(key.split(".")):
        raise KilotuneError(
            f"cannot read --set {argument}", fix="Write it as --set tune.learning_rate=2e-4"
        )
    value = _value(text)
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _value(text: str) -> Any:
    """YAML, but prose stays prose: `Text: {text}` and `{text}` are no mappings."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    written_as_mapping = text.lstrip().startswith("{") and ":" in text
    return text if isinstance(value, dict) and not written_as_mapping else value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merge(old, value)
        merged[key] = value
    return merged


def _refusal(wrong: Mapping[str, str], path: Path | None, overrides: set[str]) -> KilotuneError:
    """All that is wrong with a recipe. What `--set` gave is said to be of it, not of the file."""
    of_set = [name for name in wrong if name in overrides]
    lines = [f"{'--set ' * (name in of_set)}{name}: {said}" for name, said in wrong.items()]
    several = f"{len(lines)} settings are wrong\n  " + "\n  ".join(lines)
    return KilotuneError(
        several if len(lines) > 1 else lines[0],
        where=str(path) if path and len(of_set) < len(lines) else "",
        fix="docs/recipe.md lists all settings",
    )
