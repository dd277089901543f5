"""What can be wrong with a row so that no Example comes of it, and what is left out of one."""

from collections import defaultdict

from kilotune.data.finding import Finding, finding
from kilotune.messages.sentences import kinds


class RowError(Exception):
    """Why a row cannot be read: a finding's code, and a field or value that shows it."""

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
        """One finding for each code, in the order of all kinds."""
        return [
            finding(code, self._rows[code], detail=list(self._shown[code]))
            for code in sorted(self._rows, key=list(kinds()).index)
        ]
