"""The version of a run's records: how they are written, how older ones are read, newer refused."""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from kilotune.data.files.writers import to_json
from kilotune.errors import KilotuneError

# Of every record. Those of before there were versions have none, which is read as 0.
SCHEMA_VERSION = 2
# Which names the version of kilotune that made the run.
ENVIRONMENT = "environment.json"

# In the words of JSON, where pydantic's are Python's.
SAID = {
    "missing": "is missing", "model_type": "must be an object", "dict_type": "must be an object",
    "dataclass_type": "must be an object", "list_type": "must be a list",
    "tuple_type": "must be a list", "string_type": "must be a text", "int_type": "must be a number",
    "float_type": "must be a number", "bool_type": "must be true or false",
}  # fmt: skip


class DocumentFaultError(ValueError):
    """Why a text is not the document that it should be: one line."""


class NewerDocumentError(Exception):
    """The schema version of a document that only a newer kilotune reads."""


class Document(BaseModel):
    """A JSON document of a run, in memory always of the schema version written today."""

    model_config = ConfigDict(frozen=True)

    # The file's name in the folder of a run; of what is kept a file each, none.
    FILE: ClassVar[str] = ""
    # The field whose own fields stand beside the others in the file.
    SPREAD: ClassVar[str] = ""
    # The field that was all of the file before there were versions.
    BARE: ClassVar[str] = ""

    schema_version: int = SCHEMA_VERSION

    def content(self) -> dict[str, Any]:
        """What the file holds, without the version; dataclasses are left as they are."""
        held = {name: value for name, value in self if name != "schema_version"}
        spread = held.pop(self.SPREAD, None)
        return held if spread is None else {**held, **_fields(spread)}

    def text(self, indent: int | None = 2) -> str:
        """The document as it is written."""
        return to_json({"schema_version": SCHEMA_VERSION, **self.content()}, indent)

    @classmethod
    def upgraded(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """What a file of an older schema version would hold today.

        What is not as that version has it is left as it is, to be refused.
        """
        return tree

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The document in `raw`, of this version or an older one.

        Raises DocumentFaultError for another text, NewerDocumentError for one of a newer version.
        """
        try:
            tree = from_json(raw)
            if cls.BARE and not (isinstance(tree, dict) and "schema_version" in tree):
                tree = {cls.BARE: tree}
            found = tree.get("schema_version", 0) if isinstance(tree, dict) else None
            if isinstance(found, int) and found > SCHEMA_VERSION:
                raise NewerDocumentError(found)
            if isinstance(found, int) and found < SCHEMA_VERSION:
                tree = cls.upgraded(tree)
            if cls.SPREAD and isinstance(tree, dict):
                tree = {**tree, cls.SPREAD: tree}
            return cls.model_validate_json(to_json(tree, None), strict=True)
        except ValidationError as error:
            raise DocumentFaultError(reason(error, cls.SPREAD)) from error
        except ValueError as error:
            raise DocumentFaultError(f"no JSON: {error}") from error


def _fields(spread: Any) -> dict[str, Any]:
    """The fields of a dataclass, one level deep."""
    return {name: getattr(spread, name) for name in spread.__dataclass_fields__}


def reason(error: ValidationError, spread: str = "") -> str:
    """What is wrong first, by its place in the file, whose top level has the fields of `spread`."""
    first = error.errors(include_url=False, include_input=False)[0]
    loc = first["loc"][first["loc"][:1] == (spread,) :]
    said = SAID.get(first["type"], first["msg"].removeprefix("Value error, "))
    place = ".".join(map(str, loc))
    return f"{place}: {said}" if place else said


def too_new(name: str, folder: Path, error: NewerDocumentError) -> KilotuneError:
    """What is said of a record in `folder` that only a newer kilotune reads."""
    try:
        maker = from_json((folder / ENVIRONMENT).read_bytes())["packages"]["kilotune"]
    except (OSError, ValueError, LookupError, TypeError):
        maker = "a newer one"
    return KilotuneError(
        f"{name} is of schema version {error}, and this kilotune reads them up to {SCHEMA_VERSION}",
        where=str(folder),
        fix=f"Use the kilotune that made the run ({maker}), or a later one",
    )
