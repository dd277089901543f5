"""Commands of kilotune in forks of one process that has loaded the libraries: seconds, not tens.

The process is the standard library's fork server. A fork runs the same typer app as the console
script does, and can be struck: by itself, at its n-th file operation (an audit hook sees every one
that Python does), or from outside (`watched.py` sees those of libraries in other languages too).
"""

import contextlib
import multiprocessing
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.attack.strikes import MARK, NOTHING, SIGNALS, Hook, Strike
from tests.attack.watched import Watched

# What a command imports on its way; in the fork server it is there already.
LIBRARIES = (
    "kilotune.cli.main", "kilotune.workflows.ablate", "kilotune.session.training_augmentation",
    "kilotune.data.conversion", "kilotune.exports", "kilotune.preparation.inspection",
    "kilotune.workflows.run", "kilotune.workflows.predict", "kilotune.reports.build",
    "kilotune.session.workbench", "plotly.graph_objects", "plotly.offline", "sklearn.linear_model",
    "sklearn.feature_extraction.text", "scipy.stats", "pyarrow.parquet", "plotly.io",
    "transformers.generation", "transformers.models.llama.modeling_llama", "peft",
    "safetensors.torch",
)  # fmt: skip
# Beyond it a command hangs.
PATIENCE = 600.0
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended. `status` is that of `subprocess`: negative for a signal.

    `operations` are those before which the hook stood; `struck_at` is the one that a strike befell,
    `since` the seconds from the strike to the end.
    """

    argv: tuple[str, ...]
    strike: Strike
    status: int
    output: str
    operations: tuple[str, ...]
    events: int
    struck: bool
    struck_at: str
    seconds: float
    since: float

    def __str__(self) -> str:
        tail = "\n".join(self.output.splitlines()[-12:])
        at = f", struck at: {self.struck_at}" if self.struck else ""
        ended = f"  status {self.status} after {self.seconds:.1f} s{at}"
        return f"$ kilotune {' '.join(self.argv)}\n{ended}\n{tail}"


def run(
    argv: Sequence[str],
    folder: Path,
    cache: Path,
    strike: Strike | None = None,
    file_limit: int | None = None,
) -> Done:
    """Run `kilotune argv` in `folder`, its caches in `cache`; wait for its end.

    `file_limit` is the size in bytes that no file may grow beyond.
    """
    server = _server()
    output, its_output = server.Pipe(duplex=False)
    log, its_log = server.Pipe(duplex=False)
    plan = (tuple(argv), str(folder), str(cache), strike, file_limit)
    process = server.Process(target=_fork, args=(*plan, its_output, its_log))
    began = time.monotonic()
    process.start()
    its_output.close()
    its_log.close()
    watched = Watched(folder.parent) if strike is None or strike.kind == "event" else None
    command = _Command(process, (output, log), watched, strike, began)
    command.wait()
    return command.done(tuple(argv))


class _Command:
    """A command that runs: what comes out of its pipes, and the strike from outside."""

    def __init__(
        self,
        process: BaseProcess,
        pipes: tuple[Connection, Connection],
        watched: Watched | None,
        strike: Strike | None,
        began: float,
    ) -> None:
        self.process, self.pipes, self.watched, self.began = process, pipes, watched, began
        self.strike = strike or NOTHING
        self.said = {pipe.fileno(): bytearray() for pipe in pipes}
        self.killed = self.ended = 0.0

    def done(self, argv: tuple[str, ...]) -> Done:
        """How it ended."""
        status = self.process.exitcode
        assert status is not None
        output, log = (raw.decode("utf-8", "replace") for raw in self.said.values())
        lines = log.splitlines()
        operations = [line for line in lines if not line.startswith(MARK)]
        marks = [number for number, line in enumerate(lines) if line.startswith(MARK)]
        moment = float(lines[marks[0]].removeprefix(MARK)) if marks else self.killed
        asked = self.strike.signals and bool(marks)
        reached = operations[: marks[0]] if asked else operations
        return Done(
            argv=argv,
            strike=self.strike,
            status=status,
            output=output,
            operations=tuple(operations),
            events=self.watched.changes if self.watched else 0,
            # Torn: where nothing more was written, nothing was torn.
            struck=asked or (self.strike.kills and status in KILLED),
            struck_at=reached[-1] if reached else "",
            seconds=self.ended - self.began,
            since=self.ended - moment if moment else 0.0,
        )

    def wait(self) -> None:
        """Read until it ends: a pipe that nobody reads fills, and would stop it."""
        open_ = list(self.said)
        while open_:
            ready, _, _ = select.select([*open_, *filter(None, [self.watched])], [], [], self._left)
            for number in (n for n in ready if isinstance(n, int)):
                raw = os.read(number, 1 << 16)
                self.said[number] += raw
                if not raw:
                    open_.remove(number)
            if self.watched:
                self.watched.read()
            self._perhaps_kill()
        self.process.join(PATIENCE)
        self.ended = time.monotonic()
        if self.watched:
            self.watched.close()

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def _left(self) -> float:
        """Seconds until something is to be done unasked."""
        timed = self.strike.kind == "time" and not self.killed
        return max(0.0, (self.strike.n if timed else PATIENCE) - self._elapsed)

    def _perhaps_kill(self) -> None:
        late = self._elapsed >= PATIENCE
        if (late or self._due()) and not self.killed:
            assert self.process.pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.killed = time.monotonic()
        assert not late, f"no end in {PATIENCE:.0f} s: {self.said}"

    def _due(self) -> bool:
        """Whether a strike from outside is to come now."""
        if self.strike.kind == "time":
            return self._elapsed >= self.strike.n
        changes = self.watched.changes if self.watched else 0
        return self.strike.kind == "event" and changes >= self.strike.n


def _server() -> Any:
    """The fork server, started once for this process."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.attack.loaded"])
    with _environment({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}):
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    return server


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _fork(
    argv: Sequence[str],
    folder: str,
    cache: str,
    strike: Strike | None,
    file_limit: int | None,
    output: Connection,
    log: Connection,
) -> None:
    """The command, in the fork: what the console script does, in a session of its own."""
    os.setsid()
    for asking in SIGNALS.values():  # whoever started the tests may have them ignored
        signal.signal(asking, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    os.chdir(folder)
    os.environ["KILOTUNE_CACHE"] = cache
    sys.argv = ["kilotune", *argv]
    _quick()
    from kilotune.cli.main import app

    sys.addaudithook(Hook(Path(folder).parent, strike or NOTHING, log.fileno()))
    if file_limit is not None:  # as Python starts, the signal is ignored: writing is an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    app(prog_name="kilotune")


def _quick() -> None:
    """As the tests' conftest: one thread, and one general prompt of each kind and language."""
    import torch

    from kilotune.evaluation.forgetting import general_prompts
    from kilotune.session import retention

    torch.set_num_threads(1)
    few = general_prompts()[::10]
    retention.general_prompts = lambda: few
