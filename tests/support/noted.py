"""A progress that keeps what is said."""

from kilotune.progress import Silent


class Noted(Silent):
    """`lines` are what was said and which stages began, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, title: str) -> None:
        self.lines.append(title)

    def say(self, line: str) -> None:
        self.lines.append(line)
