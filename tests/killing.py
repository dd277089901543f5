"""Commands that are killed at their n-th file operation."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from kilotune.cli.main import app

# What gives files their names, takes them away, or waits for the disk.
OPERATIONS = ("replace", "fsync", "unlink", "mkdir")


def killed(at: int, *arguments: str | Path) -> bool:
    """Whether the command was killed at its moment `at`; False where it came to its end before.

    A moment is right before or right after an operation. In a process of its own, which is forked:
    to load the libraries each time would take minutes.
    """
    child = os.fork()
    if not child:
        _die_at(at)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        os._exit(result.exit_code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) in (0, 1)
    return False


def _die_at(at: int) -> None:
    moments = iter(range(1, 10_000))

    def moment() -> None:
        if next(moments) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            moment()
            result = operation(*arguments, **named)
            moment()
            return result

        return call

    for name in OPERATIONS:
        setattr(os, name, watched(getattr(os, name)))
