"""From YAML, a preset and `--set` arguments to one Recipe, and back."""

from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from kilotune.errors import KilotuneError, shorten, some
from kilotune.recipe.functions import PARTS, named_code
from kilotune.recipe.locations import check_names, given_here, read_in, written_in
from kilotune.recipe.migration import RECIPE_VERSION, migrate
from kilotune.recipe.problems import METHODS, MOST_SAID, brief, problems
from kilotune.recipe.safe_yaml import YamlLimitError, parse_yaml
from kilotune.recipe.schema import Recipe, TuneSettings

Tree = dict[str, Any]

# Bytes of a recipe's file, and names in the full name of a setting: far more than any has.
LARGEST, NAMES = 1_000_000, 10


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
    trust_code: bool = False,
    runs: Collection[str] = PARTS,
) -> Recipe:
    """Build a recipe: the preset, over it the file, over it `settings`, over it `overrides`.

    `path` is a YAML file and may name its own `preset`; `settings` is a mapping, nested or by full
    names (`{"tune.rank": 16}`); `overrides` are `a.b=value` strings as given to `--set`. Paths
    inside a file are relative to its folder, those of `settings` and `overrides` to the current
    one. Raises KilotuneError that names every wrong field at once.

    A file is data: Python code that it names is refused unless `trust_code`. `runs` are the parts
    of the recipe whose code the caller would run: all, or () to read what it says alone. Code that
    `settings` or `overrides` name is the caller's own.
    """
    tree = _read(path) if path else {}
    overrides = list(overrides)
    given = (_nested(settings or {}), *map(_override, overrides))
    own = [given_here(layer) for layer in given]
    layers = [tree, *own]
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
        recipe = Recipe.model_validate(base)
    except ValidationError as error:
        raise _refusal(problems(error), path, {text.split("=")[0] for text in overrides}) from error
    if path and not trust_code:
        _check_code(recipe, own, path, runs)
    if path:
        check_names(recipe.model_dump(include=set(runs)), path)
    return recipe


def recipe_of(
    source: Recipe | str | Path,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    trust_code: bool = False,
) -> Recipe:
    """The recipe that `source` is, that is in it (.yaml), or for it, a labelled file.

    `settings` of it are changed, by full names. Raises KilotuneError that names every wrong one,
    for a preset of a recipe that has come of one already, and for Python code that a file names
    unless `trust_code`.
    """
    own = _nested(settings or {})
    if not isinstance(source, Recipe):
        path = Path(source)
        if _is_recipe(path):
            return load_recipe(path, preset=preset, settings=own, trust_code=trust_code)
        return load_recipe(preset=preset, settings=_merge({"data": {"train": path}}, own))
    given = given_here(own)
    if preset is not None or "preset" in given:
        raise KilotuneError(
            "a recipe has come of its preset already",
            fix="Give the preset to load_recipe, or a file in place of the recipe",
        )
    if not given:
        return source
    tree: Tree = source.model_dump(mode="json")
    if method := (given.get("tune") or {}).get("method"):
        tree["tune"] = _known_to(method, tree["tune"])
    tree = _merge(tree, given)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise _refusal(problems(error), None, set()) from error


def recipe_for(
    source: Path,
    *,
    data: Mapping[str, Any],
    model: Mapping[str, str | None] = MappingProxyType({}),
    unlabeled: Path | None = None,
    preset: str | None = None,
    overrides: Iterable[str] = (),
    trust_code: bool = False,
    runs: Collection[str] = PARTS,
) -> Recipe:
    """The recipe in `source` (.yaml), or one for the labelled file `source`.

    `data` and `model` give settings of those parts, `unlabeled` the file of that one; those that
    are None are as if not given. Raises KilotuneError that names every wrong field at once, and
    as `load_recipe` does for code that the file names.
    """
    given = {key: value for key, value in data.items() if value is not None}
    named = {key: value for key, value in model.items() if value is not None}
    if not _is_recipe(source):
        given["train"] = source
    tree: Tree = {"data": given, "model": named}
    if unlabeled is not None:
        tree["unlabeled"] = {"file": unlabeled}
    return load_recipe(
        source if _is_recipe(source) else None,
        preset=preset,
        settings=tree,
        overrides=overrides,
        trust_code=trust_code,
        runs=runs,
    )


def _is_recipe(path: Path) -> bool:
    return path.suffix.lower() in {".yaml", ".yml"}


def dump_recipe(recipe: Recipe, folder: Path | None = None) -> str:
    """The recipe as YAML, every setting spelled out; for a file in `folder`, if that is given."""
    tree = {"schema_version": RECIPE_VERSION, **recipe.model_dump(mode="json")}
    tree = written_in(tree, folder) if folder else tree
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _known_to(method: object, tune: Tree) -> Tree:
    """Of the settings `tune` those that `method` shares with the one they were made for."""
    if METHODS.get(str(method)) is METHODS.get(tune.get("method", "")):
        return tune
    return {name: value for name, value in tune.items() if name in TuneSettings.model_fields}


def _preset(name: str) -> Tree:
    source = files("kilotune.recipe") / "presets" / f"{name}.yaml"
    if name not in presets():
        what = f"no preset {brief(name)}"
        raise KilotuneError(what, fix=f"Choose one of: {', '.join(presets())}")
    tree: Tree = parse_yaml(source.read_text(encoding="utf-8"))
    return tree


def _read(path: Path) -> Tree:
    try:
        tree = parse_yaml(_text(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        known = isinstance(error, YamlLimitError | ConstructorError) and error.problem
        fix = "Correct it there" if known else "Check indentation and quoting there"
        what = shorten(str(known), 200) if known else "not valid YAML"
        raise KilotuneError(what, where=where, fix=fix) from error
    if not isinstance(tree, dict):
        raise KilotuneError("a recipe is a YAML mapping", where=str(path), fix="See docs/recipe.md")
    migrate(tree, str(path))
    return read_in(tree, path.parent)


def _text(path: Path) -> str:
    """The text of a recipe's file. Raises KilotuneError for none, or for more than a recipe is."""
    if not path.is_file():
        what = "not a file" if path.exists() else "no such recipe"
        raise KilotuneError(what, where=str(path), fix="Check the path")
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        what = f"larger than any recipe, which has at most {LARGEST:,} bytes"
        raise KilotuneError(what, where=str(path), fix="Check the path")
    return content.decode("utf-8")


def _check_code(
    recipe: Recipe, own: Iterable[Mapping[str, Any]], path: Path, runs: Collection[str]
) -> None:
    """Raise KilotuneError where the file at `path`, and not the caller's `own`, names code."""
    given = {code for layer in own for code in named_code(layer)}
    named = [code for code in named_code(recipe.model_dump(mode="json"), runs) if code not in given]
    if named:
        raise KilotuneError(
            f"this file names Python code, which would be run: {some(named)}",
            where=str(path),
            fix="Read that code; if you trust it, repeat with --trust-code "
            "(in Python: trust_code=True)",
        )


def _nested(settings: Mapping[str, Any]) -> Tree:
    """Settings by their full names as a tree; what is nested already stays so."""
    tree: Tree = {}
    for name, value in settings.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        tree = _merge(tree, value)
    return tree


def _override(argument: str) -> Tree:
    key, equals, text = argument.partition("=")
    names = key.split(".")
    if not equals or not all(names) or len(names) > NAMES:
        raise KilotuneError(
            f"cannot read --set {shorten(argument)}",
            fix="Write it as --set tune.learning_rate=2e-4",
        )
    value = _value(text, key)
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    return dict(value)


def _value(text: str, key: str) -> Any:
    """YAML, but prose stays prose: `Text: {text}`, `{text}` and `{text}: why?` are no mappings."""
    written_as_mapping = text.lstrip().startswith("{") and ":" in text
    try:
        value = parse_yaml(text)
    except YamlLimitError as error:
        if not written_as_mapping and not text.lstrip().startswith("["):
            return text
        raise KilotuneError(
            str(error.problem), where=f"--set {key}", fix="Correct it there"
        ) from error
    except yaml.YAMLError:
        return text
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
    shown = lines[:MOST_SAID] + ["and more"] * (len(lines) > MOST_SAID)
    several = f"{len(lines)} settings are wrong\n  " + "\n  ".join(shown)
    return KilotuneError(
        several if len(lines) > 1 else lines[0],
        where=str(path) if path and len(of_set) < len(lines) else "",
        fix="docs/recipe.md lists all settings",
    )
