"""The one exception that a user of kilotune sees."""


class KilotuneError(Exception):
    """Something in the user's input that cannot be worked with.

    `what` went wrong, `where` (file, row, field, value) and how to `fix` it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        if not self.fix:
            return f"{place}{self.what}"
        # What is to be done about all of a list stands below it.
        between = "\n" if "\n" in self.what else " " if self.what.endswith("?") else ". "
        return f"{place}{self.what}{between}{self.fix}"


def shorten(text: str, limit: int = 80) -> str:
    """The end of a long text, which tells paths apart best, behind an ellipsis."""
    return text if len(text) <= limit else f"…{text[-limit:]}"


def some(items: list[str], limit: int = 5) -> str:
    """`a, b, c and 12 more`: a list short enough for one line."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
