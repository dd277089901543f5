"""Ray: trials on the machines of a cluster, each worker a process that holds the model."""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from kilotune.ablation.runner import Came, Lost
from kilotune.errors import KilotuneError
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.runs.trials import Facts, Wanted
from kilotune.system.extras import extra

LOCAL, NAMESPACE = "local", "kilotune"
REACHED = 10.0  # seconds in which the head of a cluster must answer
# Seconds after which nodes that have joined are looked for, while nothing else happens.
LOOK_AGAIN = 10.0
# Workers lost one after the other while they loaded the model, after which it is no accident.
FALSE_STARTS = 8


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where trials are done: the cluster at `address`, or one of this machine alone (`local`).

    `cpus` and `gpus` are of one trial, and may be fractions; None: one GPU where the cluster has
    any, else two CPUs where every node has them.
    """

    address: str
    cpus: float | None = None
    gpus: float | None = None


def join(place: ClusterAddress) -> None:
    """Become a driver of the cluster, unless this process is one already.

    Raises KilotuneError where Ray is not installed, or no cluster answers.
    """
    ray = _ray()
    if ray.is_initialized():
        return
    local = {"include_dashboard": False} if place.address == LOCAL else {}
    try:
        _check_reachable(place.address)
        ray.init(
            address=place.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **local,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise KilotuneError(
            f"no Ray cluster could be joined: {error}",
            where=place.address,
            fix="Start one (ray start --head; on other machines: ray start --address=HEAD:6379), "
            "or use this machine's alone: --ray local",
        ) from error


@contextmanager
def workers(
    place: ClusterAddress, make: Callable[[], Any], first: int, progress: Progress
) -> Iterator["RayWorkers"]:
    """Inside the `with` trials are done on the cluster that was joined, which is left afterwards.

    Each worker does them on what `make` makes; `first` is how many trials are wanted at first. A
    cluster that the program had joined by itself is not left.
    """
    ray = _ray()
    try:
        crew = RayWorkers(ray, place, make, first, progress)
        # Of a node that is lost Ray prints pages, to where results go.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            try:
                yield crew
            finally:
                crew.dismiss()
    finally:
        if ray.get_runtime_context().namespace == NAMESPACE:
            ray.shutdown()


class _Worker:
    """The process of one worker, on whichever node Ray puts it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def ready(self) -> tuple[str, str]:
        """Make the bench; returns the node's id and name. What goes wrong is the caller's."""
        import ray

        self.bench = self.make()
        return str(ray.get_runtime_context().get_node_id()), socket.gethostname()

    def do(self, what: str, *given: Any) -> Any:
        """Ask the bench."""
        return getattr(self.bench, what)(*given)


class _LostError(Exception):
    """A worker is no more."""


@dataclass(slots=True)
class _Hired:
    """A worker as the driver knows it."""

    actor: Any
    node: str = ""
    host: str = "before it was ready"


class RayWorkers:
    """As many workers as the nodes have room for, hired when needed and replaced when lost.

    A worker is given a trial when it has loaded the model and not before: what waits for a busy
    node holds nothing up.
    """

    def __init__(
        self,
        ray: Any,
        place: ClusterAddress,
        make: Callable[[], Any],
        first: int,
        progress: Progress,
    ) -> None:
        self.ray = ray
        self.needs = _needs(ray.nodes(), place)
        actor = ray.remote(num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"])(_Worker)
        stored = ray.put(make)
        self._hire: Callable[[], Any] = lambda: actor.remote(stored)
        self._idle: list[_Hired] = []
        # What is under way: its answer, who gives it, and the trial, if it is one.
        self._waiting: dict[Any, tuple[_Hired, Wanted | None]] = {}
        self._false_starts = 0
        room = self._room()
        if not room:
            raise KilotuneError(
                f"no node of the cluster has {self._needed()}",
                where=place.address,
                fix="Ask for less: --ray-cpus, --ray-gpus",
            )
        progress.say(f"Ray: room for {room} at once, each with {self._needed()}")
        self._staff(first)

    def begin(self, wanted: Sequence[Wanted]) -> int:
        """Begin the first of `wanted`, one for each idle worker; hire more if there is room.

        Raises KilotuneError where no node is left.
        """
        self._staff(len(wanted))
        begun = list(zip(wanted, self._idle, strict=False))
        del self._idle[: len(begun)]
        for one, worker in begun:
            self._waiting[worker.actor.do.remote("run", *one)] = (worker, one)
        return len(begun)

    def wait(self) -> list[Came | Lost]:
        """Wait for a trial, or a worker, or some seconds."""
        answers, _ = self.ray.wait(list(self._waiting), num_returns=1, timeout=LOOK_AGAIN)
        events: list[Came | Lost] = []
        for answer in answers:
            worker, wanted = self._waiting.pop(answer)
            try:
                came = self._result(worker, answer)
            except _LostError as lost:
                if wanted:
                    events.append(Lost(wanted, str(lost)))
                else:
                    self._count_false_start(lost)
                continue
            if wanted:
                events.append(Came(wanted, came))
            else:
                (worker.node, worker.host), self._false_starts = came, 0
        return events

    def facts(self) -> Facts:
        """What the model has to try, as a worker finds it."""
        found: Facts = self._ask("facts")
        return found

    def base_scores(self, recipe: Recipe) -> Mapping[str, float]:
        """How the model as it came answers every example of the folds."""
        scores: Mapping[str, float] = self._ask("base_scores", recipe)
        return scores

    def dismiss(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in (*self._idle, *(worker for worker, _ in self._waiting.values())):
            self.ray.kill(worker.actor)

    def _ask(self, what: str, *given: Any) -> Any:
        """What the first worker that is ready answers; another one is asked where it is lost."""
        while True:
            self._staff(1)
            if not self._idle:
                self.wait()
                continue
            worker = self._idle.pop()
            try:
                return self._result(worker, worker.actor.do.remote(what, *given))
            except _LostError as lost:
                self._count_false_start(lost)

    def _result(self, worker: _Hired, answer: Any) -> Any:
        """The answer of a worker, who is idle then. Raises what it raised, and _LostError."""
        exceptions = self.ray.exceptions
        try:
            came = self.ray.get(answer)
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, KilotuneError):
                raise error.cause from None
            raise
        except exceptions.RayError as error:  # the worker, its node, or the answer on its way
            self.ray.kill(worker.actor)
            raise _LostError(f"{worker.host}: {_reason(error)}") from error
        self._idle.append(worker)
        return came

    def _staff(self, wanted: int) -> None:
        """Hire until there is somebody for each of `wanted`, as far as there is room."""
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        self._idle = [worker for worker in self._idle if worker.node in alive]
        room = self._room()
        if not room:
            raise KilotuneError(
                f"no node is left of the cluster that has {self._needed()}",
                fix="Start nodes, and go on with the ablation: what is done is kept",
            )
        starting = sum(trial is None for _, trial in self._waiting.values())
        missing = wanted - len(self._idle) - starting
        for _ in range(min(missing, room - len(self._idle) - len(self._waiting))):
            worker = _Hired(self._hire())
            self._waiting[worker.actor.ready.remote()] = (worker, None)

    def _room(self) -> int:
        """How many workers the nodes that are there have room for."""
        needs = {name: need for name, need in self.needs.items() if need}
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(min(int(have.get(n, 0) / need) for n, need in needs.items()) for have in alive)

    def _needed(self) -> str:
        return " and ".join(f"{need:g} {name}" for name, need in self.needs.items() if need)

    def _count_false_start(self, lost: _LostError) -> None:
        self._false_starts += 1
        if self._false_starts >= FALSE_STARTS:
            raise KilotuneError(
                f"{FALSE_STARTS} workers were lost while they loaded the model",
                where=str(lost),
                fix="See that a node has memory enough for it, and look into Ray's logs",
            ) from lost


def _needs(nodes: Sequence[Mapping[str, Any]], place: ClusterAddress) -> dict[str, float]:
    """What one trial is given of a node."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = place.gpus
    if gpus is None:
        gpus = 1.0 if any(have.get("GPU", 0) >= 1 for have in resources) else 0.0
    cpus = place.cpus
    if cpus is None:
        fewest = min((have["CPU"] for have in resources if have.get("CPU", 0) >= 1), default=1.0)
        cpus = 1.0 if gpus else min(2.0, fewest)
    if not gpus and not cpus:
        raise KilotuneError(
            "a trial needs some CPU or GPU", where="--ray-cpus", fix="Give more than 0"
        )
    return {"CPU": cpus, "GPU": gpus}


def _check_reachable(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT, for which Ray would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()


def _reason(error: Exception) -> str:
    """The sentence in which Ray says why a worker is no more."""
    lines = [line.strip() for line in str(error).splitlines()]
    why = [line for line in lines if line.startswith("The actor is dead because")]
    if type(error).__name__ == "ActorUnavailableError":
        return "it cannot be reached"
    return (why or lines or [type(error).__name__])[0].partition(". ")[0].rstrip(".")


def _ray() -> Any:
    # Nothing is reported to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    fix = "pip install 'kilotune[ray]', here and on every node"
    return extra("ray", where="--ray", fix=fix)
