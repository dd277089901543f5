"""Paths in a recipe: which settings hold them, and from which folder they are seen."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError
from kilotune.recipe.schema import Location, Recipe, settings_of

Tree = dict[str, Any]

LOCATIONS: dict[str, Location] = {
    setting.name: mark
    for setting in settings_of()
    for mark in setting.marks
    if isinstance(mark, Location)
}

# What becomes of a text that may be a path.
Change = Callable[[str, Location], str]


def relocated(tree: Mapping[str, Any], change: Change) -> Tree:
    """The settings in `tree`, each text that may be a path as `change` has it.

    Those among the values that an ablation tries, too. Paths come back as texts.
    """
    return dict(_relocated(tree, "", change))


def read_in(tree: Mapping[str, Any], folder: Path) -> Tree:
    """The settings of a file in `folder`, with whole paths."""

    def change(text: str, location: Location) -> str:
        return str(_whole(folder, text)) if location.is_path(text, folder) else text

    return relocated(tree, change)


def given_here(tree: Mapping[str, Any]) -> Tree:
    """The settings of a caller: of names that are paths from here it is settled that they are.

    What can be nothing but a path stays as it was written, for messages.
    """

    def change(text: str, location: Location) -> str:
        here = location.or_name and location.is_path(text, Path())
        return str(_whole(Path(), text)) if here else text

    return relocated(tree, change)


def with_whole_paths(recipe: Recipe) -> Recipe:
    """The same recipe whatever folder it is used in; what is relative is so to the current one."""
    return Recipe.model_validate(read_in(recipe.model_dump(), Path()))


def written_in(tree: Mapping[str, Any], folder: Path) -> Tree:
    """The settings as a file in `folder` has them: one of a run's.

    Where both it and what a path leads to are below the current folder, the path is relative to
    `folder`, so that a project that is moved as a whole keeps its runs. Others are whole.
    """
    real, project = folder.resolve(), Path.cwd()

    def change(text: str, location: Location) -> str:
        if not location.is_path(text, project):
            return text
        place = _whole(project, text)
        if not (real.is_relative_to(project) and place.is_relative_to(project)):
            return str(place)
        relative = os.path.relpath(place, real)
        return relative if relative.startswith("../") else f"./{relative}"

    return relocated(tree, change)


def check_names(tree: Mapping[str, Any], path: Path) -> None:
    """Raise KilotuneError where a model's name in the file `path` is a folder's in this one alone.

    Libraries would take that folder, which depends on where a command is given.
    """

    def check(text: str, location: Location) -> str:
        if location.or_name and not Path(text).is_absolute() and location.is_path(text, Path()):
            raise KilotuneError(
                f"'{text}' is not a folder beside this file, but one in the current folder",
                where=str(path),
                fix=f"For that folder write {os.path.relpath(text, path.parent)}; "
                "for the hub's model give the command in another folder",
            )
        return text

    relocated(tree, check)


def check_moves(settings: Iterable[str], where: Path) -> None:
    """Raise KilotuneError for one of `settings`, as given to `--set`, that is not of a path."""
    for name in (setting.partition("=")[0].strip() for setting in settings):
        if name not in LOCATIONS:
            raise KilotuneError(
                f"{name} cannot be set anew: it goes on with the settings it began with",
                where=str(where),
                fix=f"Set only where things lie: {', '.join(LOCATIONS)}",
            )


def _relocated(value: Any, name: str, change: Change) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _relocated(item, f"{name}.{key}".removeprefix("."), change)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_relocated(item, name, change) for item in value]
    location = LOCATIONS.get(name.removeprefix("ablation.factors."))
    if location is None or not isinstance(value, str | Path):
        return value
    text = str(value)
    found = location.within.fullmatch(text)
    if not found:
        return change(text, location)
    for group in range(len(found.groups()), 0, -1):  # from behind, where places stay as they are
        if found[group]:
            start, end = found.span(group)
            text = f"{text[:start]}{change(found[group], location)}{text[end:]}"
    return text


def _whole(folder: Path, text: str) -> Path:
    """The path from the root, in real folders: `..` behind a link is not where it seems to be."""
    try:
        path = (folder / os.path.expanduser(text)).absolute()
        return path.resolve() if path.name == ".." else path.parent.resolve() / path.name
    except (OSError, RuntimeError, ValueError):  # no name that a file can have
        return folder / text
