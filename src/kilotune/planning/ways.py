"""Each way to do a training on a machine: its micro-batch, its memory and its time."""

from dataclasses import dataclass, replace

import torch

from kilotune.models.pretrained import best_device
from kilotune.planning.arithmetic import (
    filling_seconds,
    judging_seconds,
    step_arithmetic,
    step_seconds,
)
from kilotune.planning.job import ExecutionPath, Job
from kilotune.planning.speed import Accelerator, Speed
from kilotune.training.memory import (
    CARD,
    USABLE,
    BatchLengths,
    BatchMemory,
    Memory,
    Overhead,
    adapters_fused,
    micro_batch_size,
    overhead_of,
)

# Bytes of a weight in 4 bits with a scale in 8 for every 64, and in 8 with a scale a row.
QUANTISED = {"nf4": 0.516, "int8": 1.0}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a job is done. `number` is the bytes of a number in the run's precision there.

    `usable` are the bytes that batches might take if there were no weights beside them, and `own`
    those that training may fill to the last, as of a card with nothing else on it.
    """

    speed: Speed
    usable: int
    overhead: Overhead
    number: int
    own: float = 0

    @classmethod
    def here(cls, speed: Speed, usable: int, dtype: torch.dtype) -> "Machine":
        """This machine."""
        return cls(speed, usable, overhead_of(best_device()), dtype.itemsize)

    @classmethod
    def of(cls, card: Accelerator) -> "Machine":
        """A `card` with nothing else on it, in bfloat16."""
        return cls(card.speed(), int(USABLE * (card.memory - CARD.runtime)), CARD, 2, card.memory)


@dataclass(frozen=True, slots=True)
class Way:
    """A training on one path.

    `step` is useful arithmetic of one optimiser step in FLOP, in which each layer computes `tokens`
    tokens. It `fits` where a run finds room for its micro-batch beside the weights, or on a card.
    """

    name: ExecutionPath
    micro_batch: int
    tokens: float
    step: float
    step_seconds: float
    training_seconds: float
    memory: Memory
    fits: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """A run on an accelerator. Without `way` it does not fit, and `needed` says what it takes."""

    name: str
    memory: float
    needed: int
    way: Way | None
    seconds: float | None


def way_of(job: Job, path: ExecutionPath, machine: Machine) -> Way:
    """The job on `path`, in the micro-batch that a run would take on `machine`."""
    least, later = memory_of(job, path, machine, 1), job.trained.optimiser_bytes
    before = least.weights + least.features + least.trained - later
    room = machine.usable - USABLE * before
    batch, micro = _batch(job, path, machine), job.tune.micro_batch_size
    if micro == "auto":
        micro = micro_batch_size(batch, job.tune.batch_size, room)
    memory = memory_of(job, path, machine, micro)
    step, tokens = step_arithmetic(job, path, micro)
    seconds = step_seconds(job, path, micro, machine.speed)
    training = seconds * job.steps + filling_seconds(job, path, machine.speed)
    fits = sum(batch.of(micro)) + later <= room or memory.total <= machine.own
    return Way(path, micro, tokens, step, seconds, training, memory, fits)


def memory_of(job: Job, path: ExecutionPath, machine: Machine, micro: int) -> Memory:
    """Peak bytes of training in micro-batches of `micro` examples."""
    size, part, number = job.size, job.trained, machine.number
    held = number if job.tune.adapters_alone else 4  # weights that are trained are float32
    streamed = part.lowest - 1 if path is ExecutionPath.STREAMED else 0
    packed = size.products * size.layers if job.quantization != "none" else 0
    rest = size.parameters - packed - streamed * size.layer_parameters
    weights = int(rest * held + packed * QUANTISED.get(job.quantization, 0))
    # Beside gradient and moments the start that the proof of movement compares with, in float32;
    # adapters themselves as well.
    trained = part.optimiser_bytes + part.parameters * 4 * (2 if part.adapters else 1)
    # A tower that is trained sees every image anew.
    kept_images = not set(getattr(job.tune, "parts", ())) - {"language"}
    features = job.work.image_tokens * size.width * held * kept_images
    kept, passing = _batch(job, path, machine).of(micro)
    copy, examples = _check_bytes(job, path, machine, weights + trained)
    if machine.overhead.holds:
        passing = max(passing, examples - kept) + copy
    else:
        passing = max(passing, copy + examples - kept)
    return Memory(machine.overhead.runtime, weights, trained, features, kept, passing)


def _check_bytes(job: Job, path: ExecutionPath, machine: Machine, beside: int) -> tuple[int, int]:
    """What comparing two examples packed with the same padded takes, before training.

    In float32 where memory allows, with a copy of the weights: its bytes, and those of the
    examples. `beside` are the bytes of what is in memory then. Without the room for it examples
    are padded, and nothing is compared.
    """
    if not job.packed(ExecutionPath.SHARED):
        return 0, 0
    padded, copy = _batch(job, ExecutionPath.PADDED, machine), 4 * job.size.parameters
    room = machine.usable / USABLE - beside
    fixed = path is ExecutionPath.STREAMED or job.quantization != "none" or machine.number == 4
    if not fixed and copy <= room / 2:
        return copy, sum(replace(padded, number=4).of(2))
    taken = sum(padded.of(2))
    return 0, taken if taken <= room else 0


def fit(job: Job, card: Accelerator) -> Fit:
    """The cheapest way that fits `card` in bfloat16, streaming only where nothing else does."""
    machine = Machine.of(card)
    ways = [way_of(job, path, machine) for path in job.paths()]
    fitting = [way for way in ways if way.fits]
    if not fitting:
        needed = min(way.memory.total for way in ways)
        return Fit(card.name, card.memory, needed, None, None)

    def cost(way: Way) -> tuple[bool, float, int]:
        return way.name is ExecutionPath.STREAMED, way.training_seconds, way.memory.total

    chosen = min(fitting, key=cost)
    seconds = chosen.training_seconds + judging_seconds(job, machine.speed)
    return Fit(card.name, card.memory, chosen.memory.total, chosen, seconds)


def cache_bytes(job: Job, number: int) -> int:
    """Of the hidden states below the lowest trained layer, for training and validation."""
    if not job.trained.lowest:
        return 0
    examples = job.work.train + job.work.validation
    return int(examples * job.work.length * job.size.width * number)


def _batch(job: Job, path: ExecutionPath, machine: Machine) -> BatchMemory:
    work, packed = job.work, job.packed(path)
    return BatchMemory(
        job.size,
        job.trained,
        BatchLengths(work.longest, work.shared, work.answer),
        number=machine.number,
        packed=packed,
        fused=packed and adapters_fused(job.tune, job.quantization),
        growth=machine.overhead.growth,
    )
