"""How long work tells the outside how far it is, without knowing a terminal."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """One piece of work with a known number of steps."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count `steps` as done; `note` stands beside the bar until the next one."""


class Progress(Protocol):
    """Where a run reports its stages. `cli` implements it on the terminal."""

    def stage(self, title: str) -> None:
        """A new stage begins."""

    def say(self, line: str) -> None:
        """One line worth keeping on the screen."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """A bar of `total` steps, for a `with` statement."""


class _SilentBar:
    def advance(self, steps: int = 1, note: str = "") -> None:
        pass


class Silent:
    """Progress that says nothing: the default of the Python interface."""

    def stage(self, title: str) -> None:
        """Say nothing."""

    def say(self, line: str) -> None:
        """Say nothing."""

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show nothing."""
        yield _SilentBar()
