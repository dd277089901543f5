"""The base model as it came: asked, asked with examples, and a classifier on its hidden states."""

from collections.abc import Sequence

import numpy as np

from benchmarks.per_label.words import Answerer, Features, classifier
from benchmarks.per_label.worker import Job, Learnt, Turn
from kilotune.data.example import Message
from kilotune.evaluation.baselines import fit_states
from kilotune.generation.decoding import generate, generation_config, room
from kilotune.generation.hidden_states import StatesOf, hidden_states, places
from kilotune.generation.prefix import common_prefix
from kilotune.generation.prompts import Prompts
from kilotune.models.pretrained import Model, compute_dtype, stop_ids
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings
from kilotune.rendering.template import ChatTemplate
from kilotune.session.templates import load_template

# Examples in the prompt: so many, or one of each label where these are more, while they fit.
SHOWN, SHOWN_TOKENS = 16, 2000


def zero_shot(job: Job) -> Learnt:
    """The base model, asked as the tuned one is; greedy."""
    model, template = _load(job)
    return Learnt(lambda: _answers(job, model, template, ()))


def few_shot(job: Job) -> Learnt:
    """The base model with the first training rows as turns before each question; greedy."""
    model, template = _load(job)
    shown = demonstrations(job, template)
    return Learnt(
        lambda: _answers(job, model, template, shown), note=f"{len(shown) // 2} examples shown"
    )


def states(job: Job) -> Learnt:
    """kilotune's own classifier of hidden states: layer and pooling chosen out of fold.

    What it says of itself is out of fold too, the choice made anew in each.
    """
    model, template = _load(job)
    ids = [template.prompt_ids(_messages(turns)) for turns in (*job.prompts, *job.asked)]
    count, pad_id = len(job.prompts), template.tokenizer.pad_token_id
    skip = len(common_prefix(ids[:count]))

    def look(rows: slice) -> dict[StatesOf, np.ndarray]:
        wanted = {"skip": skip, "pad_id": pad_id, "progress": Silent()}
        return hidden_states(model, Prompts(ids[rows]), places(model), **wanted)

    def part(states: dict[StatesOf, np.ndarray], rows: Sequence[int]) -> dict[StatesOf, np.ndarray]:
        return {place: found[list(rows)] for place, found in states.items()}

    def fit(states: dict[StatesOf, np.ndarray], answers: Sequence[str]) -> Answerer:
        best, fitted = fit_states(states, answers, seed=job.seed)
        return lambda asked: fitted.predict(asked[best])

    return classifier(
        job, Features(lambda: look(slice(count)), lambda: look(slice(count, None)), part), fit
    )


def demonstrations(job: Job, template: ChatTemplate) -> tuple[Turn, ...]:
    """The first training rows, which have every label as far as they go, as turns of two."""
    shown: list[Turn] = []
    most = max(SHOWN, len(job.labels))
    rows = zip(job.prompts[:most], job.answers[:most], strict=True)
    for prompt, answer in rows:
        more = [*shown, prompt[-1], {"role": "assistant", "content": answer}]
        if len(template.prompt_ids(_messages([*more, job.asked[0][-1]]))) > SHOWN_TOKENS:
            break
        shown = more
    return tuple(shown)


def _answers(job: Job, model: Model, template: ChatTemplate, shown: Sequence[Turn]) -> list[str]:
    ids = [template.prompt_ids(_messages([*turns[:-1], *shown, turns[-1]])) for turns in job.asked]
    named = job.labels if job.kind == "classify" else job.answers
    config = generation_config(
        DecodingSettings(temperature=0.0),
        answer_tokens=room([len(template.encode(answer)) + 1 for answer in named]),
        stop_ids=stop_ids(model, template.stop_id),
        pad_id=template.tokenizer.pad_token_id,
    )
    said = generate(
        model, template.tokenizer, Prompts(ids), config, seed=job.seed, progress=Silent()
    )
    return [answer.text for answer in said]


def _load(job: Job) -> tuple[Model, ChatTemplate]:
    source = source_at(job.model)
    return source.model(compute_dtype("auto")).eval(), load_template(source)


def _messages(turns: Sequence[Turn]) -> list[Message]:
    return [Message(turn["role"], turn["content"]) for turn in turns]
