from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kilotune.recipe import schema
from kilotune.recipe.problems import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def names(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= names(kind, f"{prefix}{name}.")
        else:
            found.add(f"{prefix}{name}")
    return found


def test_the_page_names_every_setting_and_no_other() -> None:
    expected = names(schema.Recipe) - {"tune"}
    for method in METHODS.values():
        expected |= names(method, "tune.")
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    listed = {name.strip().strip("`") for cell in cells for name in cell.split(",")}
    assert listed == expected


def limits(
    part: dict[str, Any], parts: dict[str, Any], name: str = ""
) -> Iterator[tuple[str, Any]]:
    """The names of the settings that are numbers, and how large those may be."""
    part = parts[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
    for key, setting in part.get("properties", {}).items():
        yield from limits(setting, parts, f"{name}.{key}".removeprefix("."))
    for kind in (*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("prefixItems", ())):
        yield from limits(kind, parts, name)
    if isinstance(part.get("items"), dict):
        yield from limits(part["items"], parts, name)
    if part.get("type") in ("integer", "number"):
        yield name, part.get("maximum", part.get("exclusiveMaximum"))


def test_every_number_has_a_limit_and_the_page_says_it() -> None:
    whole = schema.Recipe.model_json_schema()
    found = dict(limits(whole, whole["$defs"]))
    assert len(found) > 50
    assert [name for name, most in found.items() if most is None] == []
    table = PAGE.read_text().partition("| at most |")[2].splitlines()[2:]
    listed = {}
    for line in table:
        _, most, names_, _ = line.split("|")
        names_listed = (name.strip().strip("`") for name in names_.split(","))
        listed |= dict.fromkeys(names_listed, int(most.replace(",", "")))
    # Shares and probabilities are below 1 by what they are.
    assert listed == {name: most for name, most in found.items() if most != 1}
