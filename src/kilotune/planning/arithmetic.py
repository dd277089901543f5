"""The arithmetic of a training and of the answers around it, and the time that it takes."""

import math
from dataclasses import replace

from kilotune.evaluation.forgetting import ANSWER_TOKENS, general_prompts
from kilotune.generation.decoding import TOKEN_BUDGET
from kilotune.generation.prefix import SHORTEST
from kilotune.planning.job import ExecutionPath, Job
from kilotune.planning.speed import Speed

# Work of one token in one layer beside its large products (norms, activations, adapters' casts
# and thin products), in products of two numbers for each of width + inner: of a layer that is
# only computed, and of one that is trained. Fitted to SmolLM2-135M in both precisions.
FORWARD, TRAINED = 45, 260

# Tokens of a general prompt, the template's own among them.
GENERAL = 40
# Seconds that generating one token takes beside all arithmetic, for each layer of a batch.
CALLING = 0.5e-3


def step_arithmetic(job: Job, path: ExecutionPath, micro: int) -> tuple[float, float]:
    """Useful FLOP of one optimiser step, and the tokens that each layer computes in it."""
    size, part, work = job.size, job.trained, job.work
    batch = job.tune.batch_size
    shared = work.shared * (batch - batch / micro) if job.packed(path) else 0
    tokens = batch * work.length - shared
    forward = part.layers if path.from_states else size.layers
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


def step_seconds(job: Job, path: ExecutionPath, micro: int, speed: Speed) -> float:
    """Seconds of one optimiser step in micro-batches of `micro` examples."""
    size, part, work = job.size, job.trained, job.work
    step, tokens = step_arithmetic(job, path, micro)
    forward = 0 if path.from_states else part.lowest
    elements = FORWARD * forward + TRAINED * (size.layers - part.lowest)
    each = tokens * (size.width + size.inner) * elements
    seconds = step / speed.products + each / speed.elements
    if job.packed(path):
        return seconds
    # Of `micro` lengths between the shortest and the longest, about so much the longest is.
    padding = (work.longest - work.length) * (micro - 1) / (micro + 1)
    return seconds * (1 + padding / work.length)


def filling_seconds(job: Job, path: ExecutionPath, speed: Speed) -> float:
    """Filling the cache: what lies below, forward, once for training and validation."""
    if not path.from_states:
        return 0.0
    tokens = (job.work.train + job.work.validation) * job.work.length
    return reading_seconds(job, tokens, speed) * job.trained.lowest / job.size.layers


def judging_seconds(job: Job, speed: Speed) -> float:
    """All that is generated: validation before, in every epoch and after; the test twice.

    And the label scores, which are one more reading, and the `general` prompts, if asked.
    """
    work = job.work
    prompts = work.validation * (2 + job.tune.passes) + 2 * work.test + min(100, work.train)
    shared = work.shared if work.shared >= SHORTEST else 0
    asked = prompts * (work.length - work.answer - shared)
    scored = work.scored * (work.length - shared)
    general = general_seconds(job, speed) if job.general else 0.0
    reading = reading_seconds(job, asked + scored, speed)
    return reading + _writing_seconds(job, prompts, speed) + general


def general_seconds(job: Job, speed: Speed) -> float:
    """The general prompts: both models answer them, and both read the base model's answers."""
    size, prompts = job.size, len(general_prompts())
    work = replace(job.work, length=GENERAL, longest=GENERAL, answer=ANSWER_TOKENS)
    asked = replace(job, work=work)
    reading = reading_seconds(asked, 2 * prompts * (2 * GENERAL + ANSWER_TOKENS), speed)
    head = 2 * 2 * size.vocabulary * size.width * prompts * ANSWER_TOKENS
    return reading + 2 * _writing_seconds(asked, prompts, speed) + head / speed.products


def streamed_reads(job: Job, number: int) -> int:
    """Bytes read from disk to generate the final answers with streamed lower layers.

    Every batch reads them for its prompts and again for each token of its answers; `number` is
    the bytes of a weight.
    """
    work = job.work
    prompts = work.validation + 2 * work.test + min(100, work.train)
    batches = math.ceil(prompts * work.length / TOKEN_BUDGET)
    layers = max(0, job.trained.lowest - 1) * job.size.layer_parameters * number
    return int(layers * batches * (1 + work.answer))


def reading_seconds(job: Job, tokens: float, speed: Speed) -> float:
    """Seconds of a forward pass without gradients."""
    size = job.size
    each = 2 * size.products + 4 * size.queries * job.work.length / 2
    elements = FORWARD * (size.width + size.inner)
    return tokens * size.layers * (each / speed.products + elements / speed.elements)


def _writing_seconds(job: Job, prompts: float, speed: Speed) -> float:
    """Seconds to generate the answers of `prompts`: every batch goes token by token.

    Each token of a batch reads all weights once, whatever the batch's size.
    """
    size, tokens = job.size, job.work.answer
    rounds = math.ceil(prompts * job.work.longest / TOKEN_BUDGET) * tokens
    weights = (size.layers * size.layer_parameters + size.vocabulary * size.width) / 2
    head = 2 * size.vocabulary * size.width * prompts * tokens
    calls = rounds * (weights / speed.elements + size.layers * CALLING)
    return reading_seconds(job, prompts * tokens, speed) + head / speed.products + calls
