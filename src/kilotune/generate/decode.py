"""Batched generation, shortest waste first, each answer in its prompt's place."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from kilotune.data.example import Image
from kilotune.generate.prefix import NONE, Prefix, shared_prefix
from kilotune.models.load import Model, takes_argument
from kilotune.models.vision import Eyes, forget_positions
from kilotune.progress import Progress
from kilotune.recipe.schema import DecodingSettings

# Tokens of prompt, padding included, that one batch may hold.
TOKEN_BUDGET = 4096


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `stopped` says that it ended by itself and not at the length limit.

    `tokens` counts what was generated for it, the one that ended it included.
    """

    text: str
    stopped: bool
    tokens: int


def generation_config(
    settings: DecodingSettings, *, answer_tokens: int, stop_ids: Sequence[int], pad_id: int
) -> GenerationConfig:
    """The recipe's decoding for transformers; `answer_tokens` is the longest answer expected."""
    limit = settings.max_new_tokens
    sampled = settings.temperature > 0
    # transformers reads 0 and 1.0 as "off", and warns of sampling settings beside greedy.
    sampling = {
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "top_p": settings.top_p,
    }
    return GenerationConfig(
        do_sample=sampled,
        max_new_tokens=answer_tokens + 4 if limit == "auto" else limit,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
        **(sampling if sampled else {}),
    )


def generate(
    model: Model,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    seed: int,
    progress: Progress,
    title: str = "generating",
    images: Sequence[Sequence[Image]] = (),
    eyes: Eyes | None = None,
) -> list[Generation]:
    """An answer for every prompt (token ids), in the order of `prompts`.

    `images` are those of each prompt, if any has some, and need the model's `eyes`. What all
    prompts begin with is computed once, unless there are images. Sampling draws from `seed` alone,
    and leaves the global generators as they were.
    """
    answers: list[Generation | None] = [None] * len(prompts)
    stops = set(config.eos_token_id)
    sampling = torch.random.fork_rng() if config.do_sample else nullcontext()
    with sampling, torch.inference_mode(), progress.bar(title, len(prompts)) as bar:
        if config.do_sample:
            torch.manual_seed(seed)
        prefix = NONE if any(images) else shared_prefix(model, prompts, config.max_new_tokens)
        for batch in batches(prompts, TOKEN_BUDGET):
            shown = [image for i in batch for image in images[i]] if any(images) else []
            rows = [prompts[i] for i in batch]
            inputs = _inputs(model, rows, config.pad_token_id, prefix, shown, eyes)
            cache = {"cache": prefix.cache(len(batch))} if prefix else {}
            output = model.generate(**inputs, **cache, generation_config=config)
            for index, ids in zip(batch, output[:, inputs["input_ids"].shape[1] :], strict=True):
                answers[index] = _read(tokenizer, ids.tolist(), stops)
            bar.advance(len(batch))
    return [answer for answer in answers if answer is not None]


def finite(
    model: Model,
    prompt: Sequence[int],
    pad_id: int,
    images: Sequence[Image] = (),
    eyes: Eyes | None = None,
) -> bool:
    """Whether all that `model` predicts to follow on a prompt (token ids) is finite."""
    one = {"logits_to_keep": 1} if takes_argument(model, "logits_to_keep") else {}
    with torch.inference_mode():
        logits = model(**_inputs(model, [prompt], pad_id, NONE, images, eyes), **one).logits
    return bool(logits[:, -1].isfinite().all())


def batches(rows: Sequence[Sequence[int]], token_budget: int) -> Iterator[list[int]]:
    """Indices of rows of about the same length, the longest first: memory fails at once.

    A batch holds at most `token_budget` tokens, padding included, or one row.
    """
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    start = 0
    while start < len(order):
        size = max(1, token_budget // len(rows[order[start]]))
        yield order[start : start + size]
        start += size


def _inputs(
    model: Model,
    prompts: Sequence[Sequence[int]],
    pad_id: int,
    prefix: Prefix,
    images: Sequence[Image],
    eyes: Eyes | None,
) -> dict[str, torch.Tensor]:
    """What the model takes for a batch of prompts and all their images, on its device."""
    inputs = _left_padded(prompts, pad_id, prefix)
    if eyes is not None and images:
        inputs.update(eyes.inputs(images, inputs["input_ids"]))
    forget_positions(model)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, prefix: Prefix
) -> dict[str, torch.Tensor]:
    """The shared prefix, then padding, then what is each prompt's own."""
    longest = max(len(prompt) for prompt in prompts)
    head, start = list(prefix.token_ids), len(prefix)
    pads = [longest - len(prompt) for prompt in prompts]
    ids = [head + [pad_id] * pad + list(p[start:]) for pad, p in zip(pads, prompts, strict=True)]
    mask = [[1] * start + [0] * pad + [1] * (longest - start - pad) for pad in pads]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def _read(tokenizer: Any, ids: list[int], stops: set[int]) -> Generation:
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    return Generation(text.strip(), end is not None, len(ids) if end is None else end + 1)
