"""What can be wrong with a row so that no Example comes of it, and what is left out of one."""

from collections import defaultdict

from kilotune.data.finding import Finding, Kind, about_rows
from kilotune.errors import some

# Rows with an error give no Example, but for
# `image-count`, whose images are attached as far as they go.
FAULTS: dict[str, Kind] = {
    "missing-field": Kind("error", "rows without a field", "Add it, or remove the rows"),
    "wrong-type": Kind(
        "error",
        "values of another kind than the format has there",
        "Correct them, or name another column or format",
    ),
    "bad-json-cell": Kind(
        "error",
        "cells that should hold JSON and do not",
        "Write them as JSON, with double quotes",
    ),
    "unknown-role": Kind(
        "error",
        "turns of an unknown role",
        "Use system, user and assistant",
    ),
    "image-count": Kind(
        "error",
        "rows with more or fewer <image> placeholders than images",
        "Write one <image> for each image, where it belongs",
    ),
    "missing-group": Kind(
        "warning",
        "rows without a group, which are split each by itself",
        "Name their group, or give each a name of its own",
    ),
    "image-word": Kind(
        "warning",
        "rows whose text says <image> where no image stands, in a file with images",
        "Put the image there, or another word",
    ),
    "remote-image": Kind(
        "error",
        "images on the web, which are not fetched",
        "Download them, and write their paths",
    ),
    "bad-image-data": Kind(
        "error",
        "embedded images that are not base64",
        "Encode them again, or write paths",
    ),
    "tools-ignored": Kind(
        "warning",
        "rows whose tool definitions, tool calls or tool results are left out",
        "Nothing need be done if the answers make sense without them",
    ),
    "turn-settings-ignored": Kind(
        "warning",
        "rows with turns that say how to train on them, or hold thoughts, which is left out",
        "Choose what is trained with train_on; write thoughts into the answer to train on them",
    ),
}


class RowError(Exception):
    """Why a row cannot be read: a code of FAULTS, and a field or value that shows it."""

    def __init__(self, code: str, shown: str = "") -> None:
        super().__init__(code, shown)
        self.code = code
        self.shown = shown


class Faults:
    """The rows of every fault, as they come up."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = defaultdict(list)
        self._shown: dict[str, dict[str, None]] = defaultdict(dict)

    def add(self, code: str, row: str, shown: str = "") -> None:
        """Note that `row` has it."""
        self._rows[code].append(row)
        if shown:
            self._shown[code][shown] = None

    def findings(self) -> list[Finding]:
        """One finding for each code, in FAULTS' order."""
        found = []
        for code, kind in FAULTS.items():
            shown = f": {some(list(self._shown[code]))}" if self._shown[code] else ""
            found += about_rows(
                code, kind.severity, self._rows[code], f"{kind.what}{shown}", kind.fix
            )
        return found
