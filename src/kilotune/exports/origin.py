"""Which run and form an exported folder is of: digests, and no place of this machine."""

import json
from pathlib import Path

from pydantic import BaseModel, ValidationError

from kilotune.data.files.writers import write_atomically
from kilotune.exports.finished import Finished
from kilotune.models.public import CARD
from kilotune.runs.record import RunFolder
from kilotune.system.digests import sha256_of

ORIGIN = "kilotune.json"


class ExportOrigin(BaseModel):
    """The name of the run, the form, and digests of what was tuned, the data, and the card."""

    run: str
    form: str
    tuned: str | None
    data: str
    card: str


def write_origin(finished: Finished, form: str, folder: Path) -> None:
    """Write it into the exported `folder`, whose card is written."""
    origin = ExportOrigin(
        run=finished.title,
        form=form,
        tuned=finished.folder.read_identity().get("tuned"),
        data=finished.data.fingerprint,
        card=sha256_of(folder / CARD),
    )
    write_atomically(folder / ORIGIN, json.dumps(origin.model_dump(), indent=2) + "\n")


def read_origin(export: Path) -> ExportOrigin | None:
    """That of an exported folder or of a file in one; None where it is not there, or damaged."""
    folder = export if export.is_dir() else export.parent
    try:
        return ExportOrigin.model_validate_json((folder / ORIGIN).read_bytes())
    except (OSError, ValidationError):
        return None


def is_of(origin: ExportOrigin, run: RunFolder) -> bool:
    """Whether an export of that origin was made of `run`, as it is now."""
    tuned = run.read_identity().get("tuned")
    return tuned is not None and tuned == origin.tuned
