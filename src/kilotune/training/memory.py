"""What training takes of memory at its peak, and how many examples fit at once.

One formula, which `kilotune plan` prints and by which a run sizes its micro-batches.
docs/plan.md says how far it was from what was measured.
"""

from dataclasses import dataclass

import torch

from kilotune.models.pretrained import Model, best_device, compute_dtype
from kilotune.models.size import DecoderWidths, Trained, decoder_widths, measure_trained
from kilotune.recipe.schema import LoraSettings, Recipe, TuneSettings
from kilotune.system.free_memory import free_memory
from kilotune.training.loss import LOGITS

# Leave room for the allocator, for generating answers and for everything else that runs here.
USABLE = 0.6


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of the libraries themselves, and how far a heap grows beyond what lies on it.

    Batches of different lengths leave gaps in a processor's heap, and it `holds` what many small
    tensors took; an accelerator's memory is handed out again by torch.
    """

    runtime: int
    growth: float
    holds: bool = False


PROCESSOR, CARD = Overhead(1_100_000_000, 1.15, holds=True), Overhead(600_000_000, 1.1)


def overhead_of(device: torch.device) -> Overhead:
    """What applies to training on `device`."""
    return CARD if device.type == "cuda" else PROCESSOR


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak bytes of training, by what takes them.

    `trained` are trained parameters, where they began, their gradient and AdamW's two moments;
    `features` those of images, kept; `activations` are kept for the backward pass. `passing` are
    logits and one layer's gradients, or what the first check takes, where that is more.
    """

    runtime: int
    weights: int
    trained: int
    features: int
    activations: int
    passing: int

    @property
    def total(self) -> int:
        """All of it."""
        kept = self.trained + self.features + self.activations
        return self.runtime + self.weights + kept + self.passing


@dataclass(frozen=True, slots=True)
class BatchLengths:
    """Tokens of the examples of a training.

    `longest` is the maximum, of which `shared` are what all begin with and computed once for all
    of a micro-batch; `labelled` is the mean of those that are trained.
    """

    longest: int
    shared: int
    labelled: float


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """What a micro-batch takes: from the widths of a model alone, whether it is there or not.

    `number` is the bytes of a number in the run's precision. Examples are `packed` or padded;
    adapters are `fused` with the weights they sit on, or computed by PEFT.
    """

    widths: DecoderWidths
    trained: Trained
    lengths: BatchLengths
    number: int
    packed: bool
    fused: bool
    growth: float

    def of(self, micro: int) -> tuple[int, int]:
        """Bytes that `micro` examples keep for the backward pass, and those in passing."""
        widths, lengths = self.widths, self.lengths
        shared = lengths.shared if self.packed else 0
        tokens = shared + micro * (lengths.longest - shared)
        # Logits are made a part at a time, and turned into their gradient where they are.
        logits = min(micro * lengths.labelled * widths.vocabulary, LOGITS)
        each = 4 if self.number == 4 else 4 + 2 * self.number
        gradients = tokens * 4 * (3 * widths.inner + 2 * widths.width)
        kept = tokens * (self.kept() + 4 * widths.scores * lengths.longest * self._layers)
        return int(self.growth * kept), int(self.growth * (logits * each + gradients))

    def kept(self) -> float:
        """Bytes that one token keeps for the backward pass, over all trained layers.

        Read off the tensors that autograd saves: the inputs of both norms in float32; queries,
        keys, values and the attention's output; the two factors of the gated product, its gate
        and its result; and the inputs of the linear layers. Where passes are compiled (see
        `models.row_kernels`) up to a quarter less is kept, which is not counted on.
        """
        widths, number = self.widths, self.number
        # Plain attention repeats keys and values for each head.
        keys = widths.keys if self.packed else widths.queries
        attention = number * 2 * (widths.queries + keys) + 4 * widths.heads
        # PEFT computes in float32: a copy for each adapter where the run's precision is another.
        own = number if self.fused else 4
        copies = 2 if self.fused or number == 4 else 6
        if not self.trained.adapters:
            copies = 4  # beside the linear layers' inputs those of the norms' own weights
        inputs = 4 * 2 * widths.width + own * copies * widths.width
        gated = (3 * number + own) * widths.inner
        return self._layers * (attention + inputs + gated + own * self.trained.ranks)

    @property
    def _layers(self) -> int:
        return self.widths.layers - self.trained.lowest


def batch_of(model: Model, recipe: Recipe, lengths: BatchLengths, *, packed: bool) -> BatchMemory:
    """Of micro-batches of `model`, as it is tuned here."""
    return BatchMemory(
        decoder_widths(model),
        measure_trained(model),
        lengths,
        number=compute_dtype(recipe.model.precision).itemsize,
        packed=packed,
        fused=packed and adapters_fused(recipe.tune, recipe.model.quantization),
        growth=overhead_of(best_device()).growth,
    )


def adapters_fused(tune: TuneSettings, quantization: str) -> bool:
    """Whether adapters are computed with the weights they sit on, where examples are packed."""
    plain = isinstance(tune, LoraSettings) and tune.method == "lora"
    return plain and quantization == "none"


def micro_batch_size(batch: BatchMemory, batch_size: int, room: float) -> int:
    """The largest divisor of `batch_size` that fits `room` bytes (at least 1).

    Gradient accumulation makes up the rest, so that an optimiser step always sees `batch_size`
    examples. `room` is for what comes with training: gradients and moments of what is trained too.
    """
    left = room - batch.trained.optimiser_bytes
    divisors = [size for size in range(1, batch_size + 1) if batch_size % size == 0]
    return max((size for size in divisors if sum(batch.of(size)) <= left), default=1)


def available_bytes() -> int:
    """Memory that a batch may take on the device that trains."""
    device = best_device()
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * USABLE)
    return int(free_memory() * USABLE)
