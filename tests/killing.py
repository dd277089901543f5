"""Commands that are killed at their n-th file operation, by a process of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

# What changes names or waits for the disk; half of them after the operation, half before it.
PATCHED = """
import os, signal, sys
at, done = int(sys.argv.pop(1)), 0
def counted(operation):
    def call(*arguments, **named):
        global done
        for now in (True, False):
            done += 1
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if now:
                result = operation(*arguments, **named)
        return result
    return call
for name in ("replace", "fsync", "unlink", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
"""
COMMAND = PATCHED + "from kilotune.cli.main import main\nmain()"


def killed(at: int, *arguments: str | Path, code: str = COMMAND) -> bool:
    """Whether the command was killed at its operation `at`; False where it ended before."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(at), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode in (0, 1, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL
