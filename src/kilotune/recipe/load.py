"""From YAML, a preset and `--set` arguments to one Recipe, and back."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kilotune.errors import KilotuneError, some
from kilotune.recipe.schema import TEMPLATES, Recipe

Tree = dict[str, Any]


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
    name = preset or tree.get("preset") or "auto"
    base = _preset(name)
    # A file may switch to another method, whose fields the preset's method does not know.
    changed = settings or {}
    for layer in (tree, changed, *map(_override, overrides)):
        method = layer.get("tune", {}).get("method")
        if method and method != base["tune"]["method"]:
            base["tune"] = {k: v for k, v in base["tune"].items() if k in _SHARED}
        base = _merge(base, layer)
    base["preset"] = name
    try:
        return Recipe.model_validate(base)
    except ValidationError as error:
        raise KilotuneError(
            _problems(error),
            where=str(path) if path else "recipe",
            fix="Correct the setting; docs/recipe.md lists them all",
        ) from error


def recipe_for(
    source: Path,
    *,
    data: Mapping[str, Any],
    model: str | None = None,
    preset: str | None = None,
    overrides: Iterable[str] = (),
) -> Recipe:
    """The recipe in `source` (.yaml), or one for the labelled file `source`.

    `data` gives settings of that part; those that are None are as if not given. Raises
    KilotuneError that names every wrong field at once.
    """
    given = {key: value for key, value in data.items() if value is not None}
    is_recipe = source.suffix.lower() in {".yaml", ".yml"}
    if not is_recipe:
        given["train"] = source
    tree: Tree = {"data": given} if model is None else {"data": given, "model": {"name": model}}
    path = source if is_recipe else None
    return load_recipe(path, preset=preset, settings=tree, overrides=overrides)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting spelled out."""
    tree = recipe.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


_SHARED = {
    "learning_rate", "epochs", "batch_size", "micro_batch_size", "schedule", "warmup_ratio",
    "weight_decay", "max_grad_norm", "stopping", "report_to", "cache", "cache_limit_gb",
    "streaming",
}  # fmt: skip


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
    data = tree.get("data")
    if isinstance(data, dict):
        for key in ("train", "validation", "test"):
            if data.get(key):
                data[key] = str(path.parent / data[key])
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


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        parts = [str(part) for part in problem["loc"] if part not in ("lora", "top_layers", "full")]
        lines.append(f"{'.'.join(parts)}: {problem['msg'].removeprefix('Value error, ')}")
    return some(lines, 8)
