"""Whether torch can be loaded within the memory that the user allows (`ulimit -v`)."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import psutil

from kilotune.system.os_errors import NO_MEMORY

# In a process of its own, with as much room as there is here: where its libraries do not fit, torch
# may end the whole process, which no one can catch.
TRY = (
    "import psutil, resource\n"
    "most = psutil.Process().memory_info().vms + {room}\n"
    "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
    "import torch"
)


def watch_torch() -> None:
    """Let an import of torch raise MemoryError where a limit is set and leaves no room for it."""
    if "torch" in sys.modules or _limit() is None:
        return
    if not any(isinstance(finder, _FirstTried) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FirstTried())


class _FirstTried(MetaPathFinder):
    """Finds nothing, but is asked first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Raise MemoryError if `name` is torch and it does not fit.

        Of any other trouble the import itself tells.
        """
        limit = _limit()
        if name != "torch" or limit is None:
            return
        room = max(0, limit - psutil.Process().memory_info().vms)
        # -P: a module in the current folder, which may be anybody's, is not torch.
        code = [sys.executable, "-P", "-c", TRY.format(room=room)]
        tried = subprocess.run(code, capture_output=True, text=True, errors="replace")
        killed = tried.returncode < 0
        if killed or (tried.returncode and NO_MEMORY.search(tried.stderr)):
            raise MemoryError


def _limit() -> int | None:
    """How much memory the process may take, in bytes; None for as much as there is."""
    try:
        import resource
    except ImportError:  # not on this system
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
