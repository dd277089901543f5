"""Results of a long job kept as they come, so that it can be stopped and gone on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError

Results = Mapping[str, Mapping[str, Any]]


class Journal:
    """A file beside the one to be written: JSON lines, of what job in the first.

    What a killed process left of a last line counts for nothing.
    """

    def __init__(self, out: Path, job: str) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self._job = job

    def read(self) -> dict[str, Any]:
        """The results so far, by key. Raises KilotuneError where they are another job's."""
        if not self.path.exists():
            return {}
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            self.path.write_bytes(whole)
        lines = [json.loads(line) for line in whole.decode().splitlines()]
        if lines and lines[0] != {"job": self._job}:
            raise KilotuneError(
                "it holds the beginning of another job",
                where=str(self.path),
                fix="Delete it, or choose another name to write to",
            )
        return {key: result for line in lines[1:] for key, result in line.items()}

    def append(self, results: Results) -> None:
        """Add results, all of them or, when the process is killed, none."""
        new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", encoding="utf-8") as file:
            if new:
                file.write(json.dumps({"job": self._job}) + "\n")
            file.write(json.dumps(results, ensure_ascii=False) + "\n")

    def remove(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)
