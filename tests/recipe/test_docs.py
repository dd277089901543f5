from pathlib import Path

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
