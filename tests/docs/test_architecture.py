"""The layout: one place for each thing, one name for each place, and a map of them that is true."""

import ast
import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import pytest

import kilotune

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kilotune"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Modules of these are called as commands are.
COMMANDS = ("cli", "workflows")
# No function has more lines than a screen, nor more parameters than are told apart at a glance.
LINES, PARAMETERS = 60, 8
AT_THE_ROOT = {"__init__", "__main__", "errors", "progress", "distributed"}


def packages() -> dict[str, set[str]]:
    """The names of the modules of each package, by its dotted name below kilotune."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        folder = ".".join(path.relative_to(SOURCE).parent.parts)
        found.setdefault(folder, set()).add(path.stem)
    return found


def test_nothing_is_loose_at_the_root() -> None:
    assert packages()[""] == AT_THE_ROOT


def test_no_two_modules_share_a_name() -> None:
    names = Counter(
        name
        for package, modules in packages().items()
        if package not in COMMANDS
        for name in (*modules - {"__init__"}, package.rpartition(".")[2])
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The names of all parameters, a method's own object aside."""
    given = function.args
    several = [extra for extra in (given.vararg, given.kwarg) if extra is not None]
    names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_functions_fit_a_screen() -> None:
    found = {
        f"{path.relative_to(SOURCE).as_posix()}: {node.name}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (
            (node.end_lineno or node.lineno) - node.lineno + 1 > LINES
            or len(parameters(node)) > PARAMETERS
        )
    }
    assert found == set()


def test_the_public_functions_are_functions_whatever_was_imported() -> None:
    for module in pkgutil.walk_packages(kilotune.__path__, "kilotune."):
        if module.name not in {"kilotune.__main__", "kilotune.ablation.ray_cluster"}:
            importlib.import_module(module.name)
    names = set(kilotune.__all__) - {"__version__", "Recipe"}
    assert all(callable(getattr(kilotune, name)) for name in names)
    elsewhere = {m for p, modules in packages().items() if p not in COMMANDS for m in modules}
    assert names & (elsewhere | {part for p in packages() for part in p.split(".")}) == set()
    with pytest.raises(AttributeError, match="no attribute 'tune'"):
        kilotune.tune  # noqa: B018


def test_the_map_names_every_module_and_no_other() -> None:
    rows = re.findall(r"^\| (?:`([\w.]+)`|at the root) \| (.*) \|$", PAGE, re.MULTILINE)
    mapped = {package: set(re.findall(r"`(\w+)`", modules)) for package, modules in rows}
    for package, modules in packages().items():
        assert mapped.pop(package) == modules - {"__init__", "__main__"}, package
    assert mapped == {}


def test_tests_mirror_the_packages() -> None:
    tests = ROOT / "tests"
    found = {".".join(path.relative_to(tests).parent.parts) for path in tests.rglob("test_*.py")}
    assert found - {"attack", "benchmarks", "docs"} <= set(packages()) - {""}
