"""The base model as it came: asked, asked with examples, and a classifier on its hidden states."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.per_label.words import Folds, at_work, figures, regression
from benchmarks.per_label.worker import Job, Learnt, Turn
from kilotune.data.example import Message
from kilotune.evaluation.metrics import macro_f1
from kilotune.generation.decoding import generate, generation_config, room
from kilotune.generation.prefix import shared_prefix
from kilotune.generation.prompts import Prompts
from kilotune.models.pretrained import Model, compute_dtype, stop_ids
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings
from kilotune.rendering.template import ChatTemplate
from kilotune.session.templates import load_template

# Examples in the prompt: so many, or one of each label where these are more, while they fit.
SHOWN, SHOWN_TOKENS = 16, 2000
# Of the layers every so many are tried, from the top down.
LAYER_STEP = 3
STRENGTH = 0.01
BATCH = 16


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
    """Balanced logistic regression on hidden states of the prompts.

    The layer, and whether its last token or the mean over what differs between the prompts, are
    those that are best out of fold. What it says of itself is out of fold too, of that choice:
    the best of several, so a little too good.
    """
    model, template = _load(job)
    ids = [template.prompt_ids(_messages(turns)) for turns in (*job.prompts, *job.asked)]
    every = hidden_states(model, ids)
    known, count = list(job.answers), len(job.prompts)
    labels = np.array(known, dtype=object)
    with at_work():
        out_of_fold = {
            name: cross_val_predict(
                _classifier(), features[:count], labels, cv=Folds(job.seed)
            ).tolist()
            for name, features in every.items()
        }
        best = max(out_of_fold, key=lambda name: macro_f1(known, out_of_fold[name], job.labels))
        model_of_states = _classifier().fit(every[best][:count], labels)
    return Learnt(
        lambda: [str(label) for label in model_of_states.predict(every[best][count:])],
        figures(job, known, out_of_fold[best], job.labels),
        note=f"layer {best[0]}, {best[1]}",
    )


def hidden_states(model: Model, ids: Sequence[Sequence[int]]) -> dict[tuple[int, str], np.ndarray]:
    """Of each prompt the last token's state and the mean, at every LAYER_STEP-th layer.

    What all prompts begin with is read once, and is not in the mean.
    """
    prefix = shared_prefix(model, ids, 0)
    rests = [list(prompt[len(prefix) :]) for prompt in ids]
    layers = range(model.config.num_hidden_layers, 0, -LAYER_STEP)
    shape = (len(ids), model.config.hidden_size)
    found = {(n, kind): np.zeros(shape, "float32") for n in layers for kind in ("last", "mean")}
    order = sorted(range(len(ids)), key=lambda index: len(rests[index]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        lengths = torch.tensor([len(rests[row]) for row in rows])
        width = int(lengths.max())
        tokens = torch.tensor([rests[row] + [0] * (width - len(rests[row])) for row in rows])
        seen = torch.arange(width)[None] < lengths[:, None]
        mask = torch.cat([torch.ones(len(rows), len(prefix), dtype=torch.bool), seen], dim=1)
        cache = {"cache": prefix.cache(len(rows))} if len(prefix) else {}
        with torch.inference_mode():
            states = model(
                tokens, attention_mask=mask.long(), output_hidden_states=True,
                use_cache=bool(cache), logits_to_keep=1, **cache,
            ).hidden_states  # fmt: skip
        for layer in layers:
            own = states[layer].float()
            found[layer, "last"][rows] = own[torch.arange(len(rows)), lengths - 1].numpy()
            total = (own * seen[..., None]).sum(1)
            found[layer, "mean"][rows] = (total / lengths[:, None]).numpy()
    return found


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


def _classifier() -> Pipeline:
    return make_pipeline(StandardScaler(), regression().set_params(C=STRENGTH))


def _load(job: Job) -> tuple[Model, ChatTemplate]:
    source = source_at(job.model)
    return source.model(compute_dtype("auto")).eval(), load_template(source)


def _messages(turns: Sequence[Turn]) -> list[Message]:
    return [Message(turn["role"], turn["content"]) for turn in turns]
