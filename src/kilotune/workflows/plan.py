"""What a run would take, before anything of it runs: parameters, memory, time.

Sizes are exact. Memory and time are estimates: each term stands below with its formula, and
docs/plan.md says how far off they were.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kilotune.data.example import Example
from kilotune.data.finding import stop_on_errors
from kilotune.evaluation.forgetting import ANSWER_TOKENS, general_prompts
from kilotune.generation.decoding import TOKEN_BUDGET
from kilotune.generation.prefix import SHORTEST, common_prefix
from kilotune.models.pretrained import best_device, compute_dtype
from kilotune.models.size import (
    ModelSize,
    Trained,
    empty_model,
    model_size,
    trained_part,
)
from kilotune.models.source import Source, locate_config
from kilotune.models.vision import load_vision
from kilotune.preparation.prepare import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe, TuneSettings
from kilotune.self_training.rounds import open_pool
from kilotune.session.templates import load_template, rendered_and_asked
from kilotune.training.memory import available_bytes
from kilotune.workflows.preflight import check_settings

# Work of one token in one layer beside its large products (norms, activations, adapters' casts
# and thin products), in products of two numbers for each of width + inner: of a layer that is
# only computed, and of one that is trained. Fitted to SmolLM2-135M in both precisions.
FORWARD, TRAINED = 45, 260

# Tokens of a general prompt, the template's own among them.
GENERAL = 40
# Seconds that generating one token takes beside all arithmetic, for each layer of a batch.
CALLING = 0.5e-3

# Bytes of a weight in 4 bits with a scale in 8 for every 64, and in 8 with a scale a row.
QUANTISED = {"nf4": 0.516, "int8": 1.0}

# Without a tokenizer: English and Chinese alike take about a token for four bytes of UTF-8, and a
# chat template about this many around its messages.
BYTES_A_TOKEN, TEMPLATE_TOKENS = 4, 16


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do. Lengths in tokens; `counted` says that a tokenizer counted them.

    `length` is the mean of an example with its answer, `longest` the maximum, `shared` what all
    begin with, `answer` the mean of the tokens that are trained. Of `scored` examples the labels
    are scored, where they are closed.
    """

    train: int
    validation: int
    test: int
    length: float
    longest: int
    shared: int
    answer: float
    counted: bool
    scored: int = 0


@dataclass(frozen=True, slots=True)
class Speed:
    """Arithmetic a second: in products of matrices, and number by number."""

    products: float
    elements: float


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of the libraries themselves, and how far a heap grows beyond what lies on it.

    Batches of different lengths leave gaps in a processor's heap; an accelerator's memory is
    handed out again by torch.
    """

    runtime: int
    growth: float


PROCESSOR, CARD = Overhead(1_100_000_000, 1.45), Overhead(600_000_000, 1.1)


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A card by its published figures: bytes, dense bfloat16 FLOP/s, bytes/s."""

    name: str
    memory: float
    peak: float
    bandwidth: float

    def speed(self) -> Speed:
        """Half the published peak; an elementwise product moves three numbers of two bytes."""
        return Speed(self.peak / 2, self.bandwidth / 6)


ACCELERATORS = (
    Accelerator("24 GB (RTX 4090)", 24e9, 165e12, 1.0e12),
    Accelerator("48 GB (L40S)", 48e9, 362e12, 0.86e12),
    Accelerator("80 GB (A100)", 80e9, 312e12, 2.0e12),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak bytes of training, by what takes them.

    `activations` are kept for the backward pass; `passing` are logits and one layer's gradients.
    """

    runtime: int
    weights: int
    trained: int
    activations: int
    passing: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.runtime + self.weights + self.trained + self.activations + self.passing


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do the same training.

    `padded` computes every example whole; `shared` what examples begin with once a micro-batch;
    `cached` also starts from stored hidden states below the lowest trained layer, and `streamed`
    leaves those lower layers on disk. `step` is useful arithmetic of one optimiser step in FLOP.
    """

    name: str
    micro_batch: int
    tokens: float
    step: float
    step_seconds: float
    training_seconds: float
    memory: Memory
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Fit:
    """A run on an accelerator. Without `way` it does not fit, and `needed` says what it takes."""

    name: str
    memory: float
    needed: int
    way: Way | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `kilotune plan` says; times in seconds, sizes in bytes."""

    model: str
    precision: str
    size: ModelSize
    trained: Trained
    work: Work
    steps: int
    cache_bytes: int
    threads: int
    speed: Speed
    free_bytes: int
    ways: tuple[Way, ...]
    judging_seconds: float
    streamed_reads: int
    accelerators: tuple[Fit, ...]


def plan(recipe: Recipe, progress: Progress | None = None) -> Plan:
    """Plan `recipe`: reads its data and the model's configuration, and measures this machine.

    Raises KilotuneError for data or a model that the run itself could not work with.
    """
    progress = progress or Silent()
    prepared = clean(prepare(recipe, progress), progress)
    recipe = prepared.recipe
    source = locate_config(recipe.model)
    check_settings(prepared, source)
    open_pool(prepared, Silent())
    model = empty_model(source.config)
    size = model_size(model)
    trained = trained_part(model, recipe.tune)
    work = measure_work(prepared, source)
    if recipe.augment.operations or recipe.unlabeled.file:
        progress.say("not counted: what augmentation and pseudo-labels add to the training part")
    progress.stage("Measuring this machine")
    dtype = compute_dtype(recipe.model.precision)
    device = best_device()
    speed, free = measure_speed(size, dtype, device), available_bytes()
    job = Job(
        size, trained, work, recipe.tune, recipe.model.quantization,
        general=recipe.judge.forgetting == "auto",
    )  # fmt: skip
    width, over = _bytes(dtype), CARD if device.type == "cuda" else PROCESSOR
    ways = tuple(job.way(name, speed, free, over, width) for name in job.names())
    return Plan(
        model=recipe.model.name,
        precision=str(dtype).removeprefix("torch."),
        size=size,
        trained=trained,
        work=work,
        steps=job.steps,
        cache_bytes=job.cache_bytes(width),
        threads=torch.get_num_threads(),
        speed=speed,
        free_bytes=free,
        ways=ways,
        judging_seconds=job.judging_seconds(speed),
        streamed_reads=job.streamed_reads(width),
        accelerators=tuple(job.fit(card) for card in ACCELERATORS),
    )


@dataclass(frozen=True, slots=True)
class Job:
    """One training: the arithmetic and the memory it takes, from sizes alone."""

    size: ModelSize
    trained: Trained
    work: Work
    tune: TuneSettings
    quantization: str = "none"
    general: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps if training does not stop early."""
        return math.ceil(math.ceil(self.work.train / self.tune.batch_size) * self.tune.epochs)

    def names(self) -> list[str]:
        """The ways that differ for this job."""
        shared = ["shared"] if self.work.shared >= SHORTEST else []
        ways = ["cached"] if self.quantization != "none" else ["cached", "streamed"]
        cached = ways if self.trained.lowest > 0 else []
        return ["padded", *shared, *cached]

    def way(self, name: str, speed: Speed, room: int, over: Overhead, width: int) -> Way:
        """The way `name` in the largest micro-batch whose memory fits into `room` bytes, or 1."""
        wanted, batch = self.tune.micro_batch_size, self.tune.batch_size
        sizes = [n for n in range(1, batch + 1) if not batch % n]
        fitting = [n for n in sizes if self.memory(name, n, over, width).total <= room]
        micro = max(fitting, default=1) if wanted == "auto" else wanted
        memory = self.memory(name, micro, over, width)
        step, tokens = self.step(name, micro)
        seconds = self._seconds(name, step, tokens, speed)
        if name == "padded":
            # Of `micro` lengths between the shortest and the longest, about so much the longest is.
            work = self.work
            padding = (work.longest - work.length) * (micro - 1) / (micro + 1)
            seconds *= 1 + padding / work.length
        return Way(
            name, micro, tokens, step, seconds, seconds * self.steps + self._filling(name, speed),
            memory, memory.total,
        )  # fmt: skip

    def fit(self, card: Accelerator) -> Fit:
        """The cheapest way that fits `card` in bfloat16, streaming only where nothing else does."""
        ways = [self.way(name, card.speed(), int(card.memory), CARD, 2) for name in self.names()]
        fitting = [way for way in ways if way.memory_bytes <= card.memory]
        if not fitting:
            return Fit(card.name, card.memory, min(way.memory_bytes for way in ways), None, None)
        chosen = min(fitting, key=lambda way: (way.name == "streamed", way.training_seconds))
        seconds = chosen.training_seconds + self.judging_seconds(card.speed())
        return Fit(card.name, card.memory, chosen.memory_bytes, chosen, seconds)

    def step(self, name: str, micro: int) -> tuple[float, float]:
        """Useful FLOP of one optimiser step, and the tokens that each layer computes in it."""
        size, part, work = self.size, self.trained, self.work
        batch = self.tune.batch_size
        shared = 0 if name == "padded" else work.shared * (batch - batch / micro)
        tokens = batch * work.length - shared
        forward = size.layers if name in ("padded", "shared") else part.layers
        # The gradient of the activations passes every layer from the lowest trained one up.
        backward = size.layers - part.lowest
        # 2 per parameter and token, forward and for the gradient of the layer's input.
        products = 2 * size.products * tokens * (forward + backward)
        # Scores and values: 2 each for every earlier token, on average half of them; twice back.
        attention = 4 * size.queries * work.length / 2 * tokens * (forward + 2 * backward)
        # The gradient of what is trained: 2 more; adapters are also computed both ways.
        own = 6 * part.adapters + 2 * part.products
        head = 4 * size.vocabulary * size.width * work.answer * batch
        return products + attention + own * tokens * part.layers + head, tokens

    def memory(self, name: str, micro: int, over: Overhead, width: int) -> Memory:
        """Peak bytes of a micro-batch; `width` is the bytes of a number in the run's precision."""
        size, part, work = self.size, self.trained, self.work
        shared = 0 if name == "padded" else work.shared * (micro - 1)
        tokens = micro * work.longest - shared
        held = width if self.tune.adapters_alone else 4  # weights that are trained are float32
        streamed = part.lowest - 1 if name == "streamed" else 0
        packed = size.products * size.layers if self.quantization != "none" else 0
        rest = size.parameters - packed - streamed * size.layer_parameters
        weights = int(rest * held + packed * QUANTISED.get(self.quantization, 0))
        # Gradient, AdamW's two moments and the start that the proof of movement compares with,
        # in float32; adapters themselves as well.
        trained = part.parameters * 4 * (5 if part.adapters else 4)
        # Logits in the run's precision and in float32, and the gradients of both.
        logits = micro * work.answer * size.vocabulary * (2 * width + 8)
        gradients = tokens * 4 * (3 * size.inner + 2 * size.width)
        kept = int(over.growth * tokens * self._kept(width))
        passing = int(over.growth * (logits + gradients))
        return Memory(over.runtime, weights, trained, kept, passing)

    def _kept(self, width: int) -> float:
        """Bytes that one token keeps for the backward pass, over all trained layers.

        Read off the tensors that autograd saves. Of the gated product three tensors in the run's
        precision, and its result in float32 for the last adapter; queries, keys and values, these
        repeated for each head, and the output; the inputs of layer and norms in float32, a copy
        for every adapter where the run's precision is another; adapters' inner products. In
        float32 the attention's output is the input of its adapter.
        """
        size, part = self.size, self.trained
        inputs = 7 if not part.adapters else (5 if width == 4 else 8)
        rank = part.adapters / sum(linear.inputs + linear.outputs for linear in size.linears)
        heads = 3 if width == 4 else 4
        layer = width * (3 * size.inner + heads * size.queries) + 4 * (
            size.inner + inputs * size.width + len(size.linears) * rank + size.heads
        )
        return layer * (size.layers - part.lowest)

    def cache_bytes(self, width: int) -> int:
        """Of the hidden states below the lowest trained layer, for training and validation."""
        if not self.trained.lowest:
            return 0
        examples = self.work.train + self.work.validation
        return int(examples * self.work.length * self.size.width * width)

    def judging_seconds(self, speed: Speed) -> float:
        """All that is generated: validation before, in every epoch and after; the test twice.

        And the label scores, which are one more reading, and the `general` prompts, if asked.
        """
        work = self.work
        prompts = work.validation * (2 + self.tune.epochs) + 2 * work.test + min(100, work.train)
        shared = work.shared if work.shared >= SHORTEST else 0
        asked = prompts * (work.length - work.answer - shared)
        scored = work.scored * (work.length - shared)
        general = self.general_seconds(speed) if self.general else 0.0
        return self._reading(asked + scored, speed) + self._writing(prompts, speed) + general

    def general_seconds(self, speed: Speed) -> float:
        """The general prompts: both models answer them, and both read the base model's answers."""
        size, prompts = self.size, len(general_prompts())
        work = replace(self.work, length=GENERAL, longest=GENERAL, answer=ANSWER_TOKENS)
        asked = replace(self, work=work)
        reading = asked._reading(2 * prompts * (2 * GENERAL + ANSWER_TOKENS), speed)
        head = 2 * 2 * size.vocabulary * size.width * prompts * ANSWER_TOKENS
        return reading + 2 * asked._writing(prompts, speed) + head / speed.products

    def streamed_reads(self, width: int) -> int:
        """Bytes read from disk to generate the final answers with streamed lower layers.

        Every batch reads them for its prompts and again for each token of its answers.
        """
        work = self.work
        prompts = work.validation + 2 * work.test + min(100, work.train)
        batches = math.ceil(prompts * work.length / TOKEN_BUDGET)
        layers = max(0, self.trained.lowest - 1) * self.size.layer_parameters * width
        return int(layers * batches * (1 + work.answer))

    def _filling(self, name: str, speed: Speed) -> float:
        """Filling the cache: what lies below, forward, once for training and validation."""
        if name not in ("cached", "streamed"):
            return 0.0
        tokens = (self.work.train + self.work.validation) * self.work.length
        return self._reading(tokens, speed) * self.trained.lowest / self.size.layers

    def _reading(self, tokens: float, speed: Speed) -> float:
        """Seconds of a forward pass without gradients."""
        size = self.size
        each = 2 * size.products + 4 * size.queries * self.work.length / 2
        elements = FORWARD * (size.width + size.inner)
        return tokens * size.layers * (each / speed.products + elements / speed.elements)

    def _writing(self, prompts: float, speed: Speed) -> float:
        """Seconds to generate the answers of `prompts`: every batch goes token by token.

        Each token of a batch reads all weights once, whatever the batch's size.
        """
        size, tokens = self.size, self.work.answer
        rounds = math.ceil(prompts * self.work.longest / TOKEN_BUDGET) * tokens
        weights = (size.layers * size.layer_parameters + size.vocabulary * size.width) / 2
        head = 2 * size.vocabulary * size.width * prompts * tokens
        calls = rounds * (weights / speed.elements + size.layers * CALLING)
        return self._reading(prompts * tokens, speed) + head / speed.products + calls

    def _seconds(self, name: str, step: float, tokens: float, speed: Speed) -> float:
        size, part = self.size, self.trained
        forward = part.lowest if name in ("padded", "shared") else 0
        work = FORWARD * forward + TRAINED * (size.layers - part.lowest)
        elements = tokens * (size.width + size.inner) * work
        return step / speed.products + elements / speed.elements


def measure_work(prepared: Prepared, source: Source) -> Work:
    """Count the tokens of a run's examples, or estimate them where there is no tokenizer."""
    parts = prepared.parts
    counted = _count(prepared, source, (*parts.train, *parts.validation))
    lengths, answers, shared = counted or _estimate(prepared, (*parts.train, *parts.validation))
    return Work(
        train=len(parts.train),
        validation=len(parts.validation),
        test=len(parts.test),
        length=sum(lengths) / len(lengths),
        longest=max(lengths),
        shared=shared,
        answer=sum(answers) / len(answers),
        counted=counted is not None,
        scored=sum(map(len, parts.named().values())) if prepared.task == "classify" else 0,
    )


Counts = tuple[list[int], list[int], int]


def _count(prepared: Prepared, source: Source, examples: Sequence[Example]) -> Counts | None:
    if not source.has_tokenizer:
        return None  # a config.json alone is enough for a plan
    vision = load_vision(source, needed=bool(prepared.pictured))
    seen = rendered_and_asked(
        prepared.recipe,
        load_template(source, vision),
        prepared.wording,
        prepared.labels,
        examples,
        source,
        held=prepared.parts.test,
    )
    stop_on_errors(seen.findings, source.settings.name)
    rendered = seen.renderings
    prompts: list[Sequence[int]] = [r.token_ids[: r.prompt_length] for r in rendered]
    if vision is not None:
        pairs = zip(prompts, rendered, strict=True)
        prompts = [vision.told_apart(ids, r.images) for ids, r in pairs]
    lengths = [len(r.token_ids) for r in rendered]
    return lengths, [sum(r.label_mask) for r in rendered], len(common_prefix(prompts))


def _estimate(prepared: Prepared, examples: Sequence[Example]) -> Counts:
    def tokens(text: str) -> int:
        return math.ceil(len(text.encode("utf-8")) / BYTES_A_TOKEN)

    limit = prepared.recipe.data.max_length
    worded = [prepared.wording.apply(example) for example in examples]
    answers = [tokens(example.messages[-1].text) + 1 for example in worded]
    texts = ["".join(message.text for message in example.messages) for example in worded]
    lengths = [min(tokens(text) + TEMPLATE_TOKENS, limit) for text in texts]
    alike = tokens(os.path.commonprefix(texts))  # noqa: RUF071 (characters are meant)
    return lengths, answers, alike + TEMPLATE_TOKENS // 2 if alike else 0


def measure_speed(
    size: ModelSize, dtype: torch.dtype, device: torch.device, seconds: float = 1.0
) -> Speed:
    """The rate of `device` in the products of one layer of the model, and number by number.

    `seconds` for each of the two, after a pass that warms up.
    """
    rows, wait = 512, getattr(torch, device.type).synchronize
    done, spent = 0, 0.0
    while spent < seconds:
        for linear in size.linears:
            x = torch.ones(rows, linear.inputs, dtype=dtype, device=device)
            weight = torch.ones(linear.outputs, linear.inputs, dtype=dtype, device=device)
            torch.nn.functional.linear(x[:8], weight)
            wait()
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            wait()
            spent += time.perf_counter() - start
            done += 2 * rows * weight.numel()
    a = torch.ones(rows, size.inner, dtype=dtype, device=device)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds / 2:
        _ = a * a
        wait()
        count += a.numel()
    return Speed(done / spent, count / elapsed)


def _bytes(dtype: torch.dtype) -> int:
    return torch.empty((), dtype=dtype).element_size()
