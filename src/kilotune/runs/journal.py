"""Results of a long job kept as they come, so that it can be stopped and gone on with."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kilotune.errors import KilotuneError
from kilotune.system.os_errors import naming

Results = Mapping[str, Mapping[str, Any]]

# The last line, once nothing is left to do but to write the file.
COMPLETE = {"complete": True}


class Journal:
    """A file beside the one to be written: JSON lines, of what job in the first.

    What a killed process left of a last line counts for nothing.
    """

    def __init__(self, out: Path, job: str, holds: str) -> None:
        """`job` tells it from other jobs; every result has a field that is called as `holds`."""
        self.path = journal_of(out)
        self._job, self._holds = job, holds

    def read(self) -> dict[str, Any]:
        """The results so far, by key.

        Raises KilotuneError where they are another job's, and where the file is damaged.
        """
        if not self.path.exists():
            return {}
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            os.truncate(self.path, len(whole))
        lines = [_line(line, self.path, n) for n, line in enumerate(whole.split(b"\n")[:-1], 1)]
        if lines and lines[0].keys() != {"job"}:
            raise _damaged(self.path, 1)
        if lines and lines[0] != {"job": self._job}:
            raise KilotuneError(
                "it holds the results of another job",
                where=str(self.path),
                fix="Delete it, or choose another name to write to",
            )
        results: dict[str, Any] = {}
        for number, line in enumerate(lines[1:], 2):
            if line == COMPLETE:
                continue
            if not all(isinstance(one, dict) and self._holds in one for one in line.values()):
                raise _damaged(self.path, number)
            results |= line
        return results

    def append(self, results: Results) -> None:
        """Add results, all of them or, when the process is killed, none."""
        self._write(results)

    def complete(self) -> None:
        """Note that all results are there: where the file is too, these have served."""
        self._write(COMPLETE)

    def _write(self, line: Mapping[str, Any]) -> None:
        new = not self.path.exists() or not self.path.stat().st_size
        text = json.dumps({"job": self._job}) + "\n" if new else ""
        text += json.dumps(line, ensure_ascii=False) + "\n"
        # A power cut may cost the answers of one chunk, and no more.
        with naming(self.path), self.path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """The job is done."""
        self.path.unlink(missing_ok=True)


def journal_of(out: Path) -> Path:
    """Where the results of a job are kept that will write `out`."""
    return out.with_name(f"{out.name}.part")


def remove_served(out: Path) -> None:
    """Remove the journal of a process that was killed right after it had written `out`."""
    path = journal_of(out)
    if out.exists() and path.is_file():
        lines = path.read_bytes().splitlines()
        if lines[-1:] == [json.dumps(COMPLETE).encode()] and lines[0].startswith(b'{"job": "'):
            path.unlink()


def _line(raw: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        line = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number) from error
    if not isinstance(line, dict):
        raise _damaged(path, number)
    return line


def _damaged(path: Path, number: int) -> KilotuneError:
    return KilotuneError(
        "the results saved there are damaged",
        where=f"{path}:{number}",
        fix="Cut it off before that line, or delete it: what is missing is computed again",
    )
