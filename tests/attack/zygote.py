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

from tests.attack.watched import Watched

# What a command imports on its way; in the fork server it is there already.
LIBRARIES = (
    "kilotune.cli.main", "kilotune.ablate", "kilotune.augmentation", "kilotune.data.convert",
    "kilotune.export", "kilotune.inspection", "kilotune.pipeline", "kilotune.predict",
    "kilotune.report.build", "kilotune.trial", "plotly.graph_objects", "plotly.offline",
    "sklearn.linear_model", "sklearn.feature_extraction.text", "scipy.stats", "pyarrow.parquet",
    "plotly.io", "transformers.generation",
    "transformers.models.llama.modeling_llama", "peft", "safetensors.torch",
)  # fmt: skip
SIGNALS = {"TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "INT": signal.SIGINT}
# Beyond it a command hangs.
PATIENCE = 240.0
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
MARK = "struck at "


@dataclass(frozen=True, slots=True)
class Strike:
    """What befalls a command, and when.

    Kinds: `audit`, killed before its n-th file operation; `torn`, killed by the first write after
    that operation that would make a file longer than `more` bytes beyond what it holds, so that
    half of it is on disk; `event`, killed at the n-th change that the kernel tells of; `time`,
    killed after n seconds; `TERM`, `HUP`, `INT`, that signal before the n-th operation; `INT-INT`,
    Ctrl-C once more two operations later.
    """

    kind: str
    n: float
    more: int = 0

    @property
    def signals(self) -> bool:
        """Whether it asks the command to stop, and does not kill it."""
        return self.kind.partition("-")[0] in SIGNALS

    def __str__(self) -> str:
        return ":".join(f"{part:g}" if part != self.kind else part for part in self._parts)

    @property
    def _parts(self) -> tuple[Any, ...]:
        return (self.kind, self.n, self.more) if self.kind == "torn" else (self.kind, self.n)

    @classmethod
    def parse(cls, text: str) -> "Strike":
        """What `str` gives."""
        kind, n, *more = text.split(":")
        return cls(kind, float(n), *map(int, more))


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended. `status` is negative for a signal, as subprocess has it.

    `operations` are those before which the hook stood, the last one that of the strike.
    """

    argv: tuple[str, ...]
    strike: Strike | None
    status: int
    output: str
    operations: tuple[str, ...]
    events: int
    struck: bool
    seconds: float
    since: float

    def __str__(self) -> str:
        tail = "\n".join(self.output.splitlines()[-12:])
        at = f", struck at: {self.operations[-1]}" if self.struck and self.operations else ""
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
    struck = _Command(process, (output, log), watched, strike, began)
    struck.wait()
    ended = time.monotonic()
    assert process.exitcode is not None
    marks = [line for line in struck.log.splitlines() if line.startswith(MARK)]
    moment = float(marks[0].removeprefix(MARK)) if marks else struck.killed
    return Done(
        argv=tuple(argv),
        strike=strike,
        status=process.exitcode,
        output=struck.output,
        operations=tuple(line for line in struck.log.splitlines() if line not in marks),
        events=watched.changes if watched else 0,
        # Torn: where nothing more was written, nothing was torn.
        struck=bool(marks) if strike and strike.signals else process.exitcode in KILLED,
        seconds=ended - began,
        since=ended - moment if moment else 0.0,
    )


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
        self.strike = strike or Strike("none", 0)
        self.said = {pipe.fileno(): bytearray() for pipe in pipes}
        self.killed = 0.0

    @property
    def output(self) -> str:
        return self._text(0)

    @property
    def log(self) -> str:
        return self._text(1)

    def _text(self, pipe: int) -> str:
        return list(self.said.values())[pipe].decode("utf-8", "replace")

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
        due = late or (
            self._elapsed >= self.strike.n
            if self.strike.kind == "time"
            else self.strike.kind == "event"
            and self.watched
            and self.watched.changes >= self.strike.n
        )
        if due and not self.killed:
            assert self.process.pid is not None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.killed = time.monotonic()
        assert not late, f"no end in {PATIENCE:.0f} s:\n{self.output}"


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
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    output.close()
    os.chdir(folder)
    os.environ["KILOTUNE_CACHE"] = cache
    sys.argv = ["kilotune", *argv]
    _quick()
    from kilotune.cli.main import app

    sys.addaudithook(Hook(Path(folder).parent, strike, log.fileno()))
    if file_limit is not None:  # as Python starts, the signal is ignored: writing is an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    app(prog_name="kilotune")


def _quick() -> None:
    """As the tests' conftest: one thread, and one general prompt of each kind and language."""
    import torch

    from kilotune import session
    from kilotune.evaluate.forgetting import general_prompts

    torch.set_num_threads(1)
    few = general_prompts()[::10]
    session.general_prompts = lambda: few


class Hook:
    """Counts the file operations under `root` that change something, and strikes before one."""

    NAMES: Mapping[str, tuple[int, ...]] = {
        "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,),
        "os.truncate": (0,), "os.link": (0, 1), "os.symlink": (1,), "os.utime": (0,),
        "os.chmod": (0,), "shutil.rmtree": (0,), "shutil.copyfile": (1,), "shutil.move": (1,),
    }  # fmt: skip
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self, root: Path, strike: Strike | None, log: int) -> None:
        self.root, self.strike, self.log = os.path.realpath(root), strike, log
        self.count = 0
        self.left = {"INT-INT": 2}.get(strike.kind, 1) if strike else 0
        self.within = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.within or (event != "open" and event not in self.NAMES):
            return
        self.within = True
        try:
            paths = self._paths(event, args)
            if any(path.startswith(self.root) for path in paths):
                self._happens(event, paths)
        finally:
            self.within = False

    def _paths(self, event: str, args: tuple[Any, ...]) -> list[str]:
        if event != "open":
            given = [args[place] for place in self.NAMES[event]]
            base = next((a for a in args[1:] if type(a) is int and a > 2), None)
        elif (args[2] or 0) & self.WRITING:
            given, base = [args[0]], None
        else:
            return []
        names = [os.fsdecode(name) for name in given if not isinstance(name, int)]
        if event == "os.mkdir" and os.path.isdir(names[0]):
            return []
        at = os.readlink(f"/proc/self/fd/{base}") if event == "os.remove" and base else os.getcwd()
        return [os.path.join(at, name) for name in names]

    def _happens(self, event: str, paths: Sequence[str]) -> None:
        self.count += 1
        if self.strike is None or self.left:
            os.write(self.log, f"{event} {' '.join(paths)}\n".encode())
        strike = self.strike
        if strike is None or not self.left:
            return
        if strike.kind in ("event", "time") or self.count < strike.n:
            return
        if strike.kind == "INT-INT" and self.left == 1 and self.count < strike.n + 2:
            return
        self.left -= 1
        os.write(self.log, f"{MARK}{time.monotonic()}\n".encode())
        self._strike(strike, paths)

    def _strike(self, strike: Strike, paths: Sequence[str]) -> None:
        if strike.kind == "audit":
            os.kill(os.getpid(), signal.SIGKILL)
        elif strike.kind == "torn":
            held = max((os.path.getsize(p) for p in paths if os.path.isfile(p)), default=0)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            limit = held + strike.more
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        else:
            os.kill(os.getpid(), SIGNALS[strike.kind.partition("-")[0]])
