"""Batched generation, shortest waste first, each answer in its prompt's place."""

import copy
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from kilotune.generation.greedy import GreedyDecoder
from kilotune.generation.padding import batches, left_padded
from kilotune.generation.prefix import NONE, Prefix, obstacle, shared_prefix
from kilotune.generation.prompts import Prompts
from kilotune.generation.slots import Slots
from kilotune.models.answering import answering
from kilotune.models.pretrained import Model, takes_argument
from kilotune.models.vision import forget_positions
from kilotune.progress import Bar, Progress
from kilotune.recipe.schema import DecodingSettings

# Tokens of prompt, padding included, that one batch may hold.
TOKEN_BUDGET = 4096
# From so many shared tokens on a batch may hold so many times as many.
LONG_PREFIX, LONG_BUDGET = 1024, 4
# What a model's own settings may hold without changing its greedy answers.
WITHOUT_A_SAY = {
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p",
    "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "stop_strings",
    "max_length", "max_new_tokens", "use_cache", "output_attentions", "output_hidden_states",
    "transformers_version", "_from_model_config",
}  # fmt: skip
# The answers that must have room, and how much more there is than they take.
USUAL, MARGIN, LEAST_MARGIN = 0.99, 0.2, 4


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `stopped` says that it ended by itself and not at the length limit.

    `token_ids` are what was generated for it, the one that ended it included: `text` encoded again
    may be other tokens, and more.
    """

    text: str
    stopped: bool
    token_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """How many tokens were generated for it."""
        return len(self.token_ids)


def generation_config(
    settings: DecodingSettings, *, answer_tokens: int, stop_ids: Sequence[int], pad_id: int
) -> GenerationConfig:
    """The recipe's decoding for transformers; `answer_tokens` is the room that `auto` gives."""
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
        max_new_tokens=answer_tokens if limit == "auto" else limit,
        eos_token_id=list(stop_ids),
        pad_token_id=pad_id,
        # What is left out comes from the model's own settings, and theirs may have a penalty.
        repetition_penalty=settings.repetition_penalty,
        **(sampling if sampled else {}),
        **({"stop_strings": list(settings.stop)} if settings.stop else {}),
    )


def decoding_settings(config: GenerationConfig) -> DecodingSettings:
    """What `generation_config` was made of, `max_new_tokens` as a number."""
    sampling = {}
    if config.do_sample:
        limits = {"top_k": config.top_k or 0, "top_p": config.top_p or 1.0}
        sampling = {"temperature": config.temperature or 1.0, **limits}
    return DecodingSettings(
        **sampling,
        repetition_penalty=config.repetition_penalty or 1.0,
        max_new_tokens=config.max_new_tokens,
        stop=tuple(config.stop_strings or ()),
    )


def room(lengths: Sequence[int]) -> int:
    """How many tokens an answer may take, by those of known ones, the end token included.

    Their 99th percentile and a fifth more, at least four: one answer of a hundred times the usual
    length must not let every answer that does not stop run so far.
    """
    usual = math.ceil(float(np.quantile(lengths, USUAL, method="higher")))
    return usual + max(LEAST_MARGIN, math.ceil(MARGIN * usual))


def generate(
    model: Model,
    tokenizer: Any,
    prompts: Prompts,
    config: GenerationConfig,
    *,
    seed: int,
    progress: Progress,
    title: str = "generating",
    show: Callable[[str], None] | None = None,
) -> list[Generation]:
    """An answer for every prompt, in their order.

    What all prompts begin with is computed once, unless there are images. Sampling draws from
    `seed` alone, and leaves the global generators as they were. `show` is given the text of a
    single prompt's answer, as it grows. Plain greedy answers to several prompts come from a loop
    of our own, two of them being compared with the model's plain forward each time.
    """
    stops, endings = set(config.eos_token_id), list(config.stop_strings or ())
    if model.generation_config is not None:  # what is None would be filled from there
        model.generation_config.stop_strings = None

    def read(ids: Sequence[int]) -> Generation:
        return read_answer(tokenizer, ids, stops, endings)

    def ended(ids: Sequence[int]) -> bool:
        return read(ids).stopped if endings else ids[-1] in stops

    sampling = torch.random.fork_rng() if config.do_sample else nullcontext()
    with (
        sampling,
        torch.inference_mode(),
        answering(model),
        progress.bar(title, len(prompts)) as bar,
    ):
        if config.do_sample:
            torch.manual_seed(seed)
        apart = prompts.pictured or config.repetition_penalty not in (None, 1.0)
        prefix = NONE if apart else shared_prefix(model, prompts.token_ids, config.max_new_tokens)
        found: dict[int, list[int]] | None = None
        if show is None and _looped(model, prompts, config):
            decoder = GreedyDecoder(
                model, prefix, config.pad_token_id, config.max_new_tokens, ended
            )
            found = _greedy(decoder, prompts.token_ids, progress, bar)
        if found is None:
            sampler = _Sampler(model, config, prefix, read, show)
            found = sampler.sample(prompts, bar)
    return [read(found[index]) for index in range(len(prompts))]


def _looped(model: Model, prompts: Prompts, config: GenerationConfig) -> bool:
    """Whether the greedy loop can answer, and is worth its check."""
    if len(prompts) < 2 or prompts.pictured or not plainly_greedy(model, config):
        return False
    longest = max(map(len, prompts.token_ids)) + config.max_new_tokens
    return not obstacle(model, longest)


def _greedy(
    decoder: GreedyDecoder, prompts: Sequence[Sequence[int]], progress: Progress, bar: Bar
) -> dict[int, list[int]] | None:
    """The tokens that `decoder` answers, by prompt; None, and said, where it is not to be trusted.

    That shows in the first batch.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    together = decoder.rows(len(prompts[order[0]]))
    found: dict[int, list[int]] = {}
    for start in range(0, len(order), together):
        batch = order[start : start + together]
        asked = [prompts[index] for index in batch]
        try:
            answered = decoder.answer(asked)
            error = "" if start else decoder.error(asked, answered)
        except Exception as problem:  # what a foreign model's code makes of it, none can foresee
            error = str(problem) or type(problem).__name__
        if error:
            progress.say(f"answers come from transformers' own loop: by the fast one, {error}")
            return None
        found.update(zip(batch, answered.token_ids, strict=True))
        bar.advance(len(batch))
    return found


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Generation by transformers, which knows every way of decoding and every model."""

    model: Model
    config: GenerationConfig
    prefix: Prefix
    read: Callable[[Sequence[int]], Generation]
    show: Callable[[str], None] | None

    def sample(self, prompts: Prompts, bar: Bar) -> dict[int, list[int]]:
        """The tokens that follow on each prompt, some more behind the last being nobody's."""
        # Of a long prefix the tokens are computed once, and take memory alone.
        budget = TOKEN_BUDGET * (LONG_BUDGET if len(self.prefix) > LONG_PREFIX else 1)
        found: dict[int, list[int]] = {}
        for batch in batches(prompts.token_ids, budget):
            found.update(zip(batch, self._batch(prompts.of(batch)), strict=True))
            bar.advance(len(batch))
        return found

    def _batch(self, prompts: Prompts) -> list[list[int]]:
        config, model = self.config, self.model
        inputs = inputs_of(model, prompts, config.pad_token_id, self.prefix)
        width = inputs["input_ids"].shape[1]
        more: dict[str, Any] = {}
        if self.prefix:
            slots = Slots(len(prompts), width, config.max_new_tokens, self.prefix)
            more["cache"] = slots.reading(0, len(prompts), width)
        # transformers would find a stop string that begins in the prompt.
        plain = copy.copy(config)
        plain.stop_strings = None
        # Nothing can be drawn from probabilities that are not finite, as of a model tuned to
        # pieces: they say any token, as greedy decoding does.
        plain.remove_invalid_values = config.do_sample
        ended = [_Ended(self.read, width)] if config.stop_strings else []
        output = model.generate(
            **inputs,
            **more,
            generation_config=plain,
            stopping_criteria=StoppingCriteriaList(ended),
            logits_processor=_penalty(config, inputs["attention_mask"]),
            streamer=_Shown(self.read, self.show) if self.show else None,
        )
        said: list[list[int]] = output[:, width:].tolist()
        return said


def plainly_greedy(model: Model, config: GenerationConfig) -> bool:
    """Whether the answer is the likeliest token each time, and nothing else has a say in it."""
    own = model.generation_config.to_diff_dict() if model.generation_config is not None else {}
    penalised = config.repetition_penalty != 1.0  # of None the model's own takes the place
    others = {*own, *config.to_diff_dict()} - WITHOUT_A_SAY
    return not (config.do_sample or penalised or others)


def finite(model: Model, prompts: Prompts, pad_id: int) -> bool:
    """Whether all that `model` predicts to follow on `prompts` is finite."""
    one = {"logits_to_keep": 1} if takes_argument(model, "logits_to_keep") else {}
    with torch.inference_mode():
        logits = model(**inputs_of(model, prompts, pad_id, NONE), **one).logits
    return bool(logits[:, -1].isfinite().all())


def inputs_of(
    model: Model, prompts: Prompts, pad_id: int, prefix: Prefix
) -> dict[str, torch.Tensor]:
    """What the model takes for a batch of prompts and all their images, on its device."""
    inputs = left_padded(prompts.token_ids, pad_id, prefix.token_ids)
    if prompts.eyes is not None and prompts.pictured:
        inputs.update(prompts.eyes.inputs(prompts.shown(), inputs["input_ids"]))
    forget_positions(model)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def read_answer(
    tokenizer: Any, ids: Sequence[int], stops: Collection[int], endings: Sequence[str] = ()
) -> Generation:
    """The answer before the first stop token or stop string."""
    end = next((i for i, token in enumerate(ids) if token in stops), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    places = [place for ending in endings if (place := text.find(ending)) >= 0]
    if places:
        starts = (tokenizer.decode(ids[:n], skip_special_tokens=True) for n in range(1, len(ids)))
        tokens = 1 + sum(not any(ending in so_far for ending in endings) for so_far in starts)
        return Generation(text[: min(places)].strip(), True, tuple(ids[:tokens]))
    said = ids if end is None else ids[: end + 1]
    return Generation(text.strip(), end is not None, tuple(said))


def _penalty(config: GenerationConfig, mask: torch.Tensor) -> LogitsProcessorList:
    """What keeps the padding of a batch out of the repetition penalty.

    It may be the token that ends answers. The prompt counts, as it does for transformers.
    """
    if config.repetition_penalty in (None, 1.0):
        return LogitsProcessorList()
    pads = (mask == 0).sum(dim=1)
    return LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(config.repetition_penalty, prompt_ignore_length=pads)]
    )


class _Ended(StoppingCriteria):
    """Ends the rows whose answer, behind the prompt's `width` columns, holds a stop string."""

    def __init__(self, read: Callable[[Sequence[int]], Generation], width: int):
        self._read, self._width = read, width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ended = [self._read(row).stopped for row in input_ids[:, self._width :].tolist()]
        return torch.tensor(ended, device=input_ids.device)


class _Shown(BaseStreamer):
    """Reads one answer anew with every token, and shows it."""

    def __init__(self, read: Callable[[Sequence[int]], Generation], show: Callable[[str], None]):
        self._read, self._show = read, show
        self._ids: list[int] | None = None

    def put(self, value: torch.Tensor) -> None:
        if self._ids is None:  # the prompt comes first
            self._ids = []
            return
        self._ids += value.tolist()
        self._show(self._read(self._ids).text)

    def end(self) -> None:
        pass
