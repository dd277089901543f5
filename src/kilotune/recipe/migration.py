"""The schema version of a recipe's file: settings that were renamed, and files that are too new."""

from collections.abc import Mapping
from typing import Any

from kilotune.errors import KilotuneError

Tree = dict[str, Any]

# Goes up when a setting is renamed, or means something else.
RECIPE_VERSION = 1
# By the version that renamed them, full names of settings before, and since.
RENAMED: Mapping[int, Mapping[str, str]] = {}


def migrate(tree: Tree, where: str) -> None:
    """Give what a recipe's file holds today's names; take its version out, if it has one.

    Raises KilotuneError for a version that is newer than RECIPE_VERSION, or that is none.
    """
    version = tree.pop("schema_version", 0)
    if isinstance(version, bool) or not isinstance(version, int):
        raise KilotuneError(
            "schema_version must be a whole number",
            where=where,
            fix="Leave it as kilotune wrote it",
        )
    if version > RECIPE_VERSION:
        raise KilotuneError(
            f"a recipe of schema version {version}, and this kilotune reads them up to "
            f"{RECIPE_VERSION}",
            where=where,
            fix="Use the kilotune that wrote it, or a later one",
        )
    for since in sorted(RENAMED):
        if version < since:
            for old, new in RENAMED[since].items():
                _rename(tree, old.split("."), new.split("."), where)


def _rename(tree: Tree, old: list[str], new: list[str], where: str) -> None:
    place = _group(tree, old[:-1])
    if old[-1] not in place:
        return
    for name in new[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return  # what is wrong with that is said of it by name
    if new[-1] in tree:
        raise KilotuneError(
            f"{'.'.join(old)} is called {'.'.join(new)} now, which is given too",
            where=where,
            fix="Keep one of them",
        )
    tree[new[-1]] = place.pop(old[-1])


def _group(tree: Tree, names: list[str]) -> Tree:
    """The settings at a place in a recipe; none where there are none."""
    for name in names:
        found = tree.get(name)
        tree = found if isinstance(found, dict) else {}
    return tree
