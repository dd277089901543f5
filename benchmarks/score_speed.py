"""Seconds to choose among 8 labels, against lm-evaluation-harness and plain `model.generate`.

    python benchmarks/score_speed.py                             # 400 articles, float32
    python benchmarks/score_speed.py --dtype bfloat16 --json

Needs lm-eval (`pip install lm-eval`). Articles of Reuters R8 cut to 64 tokens behind an
instruction that describes each label, put to SmolLM2-135M-Instruct. The contenders take turns at
the same articles, some at a time, so that a busy machine slows them all; the CPU seconds of this
process stand beside the wall's. The harness scores the very same tokens, labels without the token
that ends an answer, as its multiple-choice tasks do; of its ways this is the fastest, since
labels of one token then share a forward. "Same choice" counts the articles for which the label
with the highest sum is that of kilotune's scores, and "off by" is the largest difference of a
log-likelihood to kilotune's.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from quality import write_r8
from r8 import GUIDE, LABELS
from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig

from kilotune.cli.terminal import quieten_libraries
from kilotune.data.example import Example, Message, Origin
from kilotune.evaluation.metrics import parse_label
from kilotune.generation.decoding import generate, generation_config
from kilotune.generation.prefix import common_prefix
from kilotune.generation.prompts import Prompts as Asked
from kilotune.generation.score import LabelSet, label_ids, score_labels
from kilotune.models.builtin import make_builtin
from kilotune.models.source import source_at
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import wording
from kilotune.session.templates import load_template

NAMES = list(LABELS)
OURS = "kilotune scores"

Prompts = Sequence[list[int]]
Sums = list[float]


@dataclass(frozen=True)
class Said:
    """A contender's label for one prompt, and its scores of all labels where it has any."""

    label: str
    sums: Sums = field(default_factory=list)


Contender = Callable[[Prompts], list[Said]]


def main() -> None:
    """Let every contender label every article, and print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, default=400)
    parser.add_argument("--at-a-time", type=int, default=100)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--harness-batch", nargs="+", type=int, default=[8])
    parser.add_argument("--json", action="store_true", help="one JSON document as the last line")
    options = parser.parse_args()
    quieten_libraries()
    source = source_at(make_builtin("smollm2"))
    model = source.model(getattr(torch, options.dtype))
    template = load_template(source)
    prompts = read_prompts(template, options.articles)
    by_name = contenders(model, template, options.harness_batch)
    wall, cpu = dict.fromkeys(by_name, 0.0), dict.fromkeys(by_name, 0.0)
    said: dict[str, list[Said]] = {name: [] for name in by_name}
    for start in range(0, len(prompts), options.at_a_time):
        for name, contender in by_name.items():
            begin = time.perf_counter(), time.process_time()
            said[name] += contender(prompts[start : start + options.at_a_time])
            wall[name] += time.perf_counter() - begin[0]
            cpu[name] += time.process_time() - begin[1]
    results = [
        {
            "contender": name,
            "seconds": round(wall[name], 2),
            "times_slower": round(wall[name] / wall[OURS], 2),
            "cpu_seconds": round(cpu[name], 2),
            "cpu_times_slower": round(cpu[name] / cpu[OURS], 2),
            **agreement(said[name], said[OURS]),
        }
        for name in by_name
    ]
    shared = len(common_prefix(prompts))
    threads = torch.get_num_threads()
    print_table(
        f"{len(prompts)} articles, {shared} shared tokens, {options.dtype}, {threads} threads",
        results,
    )
    if options.json:
        facts = {**vars(options), "shared_tokens": shared, "threads": threads}
        print(json.dumps({**facts, "results": results}))


def read_prompts(template: ChatTemplate, count: int) -> list[list[int]]:
    """The prompts of R8's test articles as token ids."""
    words = wording(GUIDE, None, NAMES)
    with tempfile.TemporaryDirectory() as scratch:
        _, test = write_r8(Path(scratch))
        with test.open(encoding="utf-8", newline="") as file:
            texts = [row["text"] for row in csv.DictReader(file)][:count]
    examples = [
        Example(str(i), (Message("user", text),), Origin("r8", i)) for i, text in enumerate(texts)
    ]
    return [template.prompt_ids(words.apply(example).messages) for example in examples]


def agreement(said: list[Said], ours: list[Said]) -> dict[str, object]:
    """How many choices are the same, and how far the scores are apart."""
    pairs = list(zip(said, ours, strict=True))
    apart = [abs(a - b) for s, o in pairs for a, b in zip(s.sums, o.sums, strict=False)]
    return {
        "same_choice": sum(s.label == o.label for s, o in pairs),
        "off_by": float(f"{max(apart):.1e}") if apart else None,
    }


def contenders(model, template: ChatTemplate, harness_batches: list[int]) -> dict[str, Contender]:
    """Ways to label prompts."""
    pad_id = template.tokenizer.pad_token_id
    labels = [template.encode(name) for name in NAMES]
    answers = label_ids(template, NAMES)
    config = generation_config(
        DecodingSettings(), answer_tokens=max(map(len, answers)), stop_ids=[template.stop_id],
        pad_id=pad_id,
    )  # fmt: skip

    def scored(labels: list[list[int]]) -> Contender:
        def label(prompts: Prompts) -> list[Said]:
            closed = LabelSet(labels, pad_id)
            found = score_labels(model, Asked(prompts), closed, progress=Silent())
            return [best(list(scores.log_likelihoods)) for scores in found]

        return label

    def generated(prompts: Prompts) -> list[Said]:
        said = generate(
            model, template.tokenizer, Asked(prompts), config, seed=0, progress=Silent()
        )
        return [Said(parse_label(answer.text, NAMES)) for answer in said]

    return {
        OURS: scored(labels),
        "the same, end token included": scored(answers),
        "kilotune generates": generated,
        "model.generate, batch 16": plain_generate(model, template.tokenizer, config),
        **{
            f"lm-eval, batch {size}": harness(model, template.tokenizer, labels, size)
            for size in harness_batches
        },
    }


def plain_generate(model, tokenizer, config: GenerationConfig) -> Contender:
    """transformers alone: batches of 16 prompts of about the same length, padded on the left."""

    def label(prompts: Prompts) -> list[Said]:
        said = [Said("")] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), 16):
            batch = order[start : start + 16]
            inputs = tokenizer.pad(
                {"input_ids": [prompts[i] for i in batch]}, padding_side="left", return_tensors="pt"
            )
            output = model.generate(**inputs, generation_config=config)
            answers = output[:, inputs["input_ids"].shape[1] :]
            for index, text in zip(
                batch, tokenizer.batch_decode(answers, skip_special_tokens=True), strict=True
            ):
                said[index] = Said(parse_label(text, NAMES))
        return said

    return label


def harness(model, tokenizer, labels: list[list[int]], batch_size: int) -> Contender:
    """lm-evaluation-harness's own scoring of continuations, its cache of contexts included."""
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")

    def label(prompts: Prompts) -> list[Said]:
        texts = [tokenizer.decode(prompt) for prompt in prompts]
        requests = [
            ((text, name), prompt, ids)
            for text, prompt in zip(texts, prompts, strict=True)
            for name, ids in zip(NAMES, labels, strict=True)
        ]
        sums = [value for value, _ in lm._loglikelihood_tokens(requests, disable_tqdm=True)]
        return [best(sums[i : i + len(NAMES)]) for i in range(0, len(sums), len(NAMES))]

    return label


def best(sums: Sums) -> Said:
    """The label with the highest sum."""
    return Said(NAMES[max(range(len(NAMES)), key=lambda index: sums[index])], sums)


def print_table(title: str, results: list[dict]) -> None:
    """A line a contender."""
    table = Table("contender", title=title)
    for column in ("seconds", "times slower", "CPU s", "times slower", "same choice", "off by"):
        table.add_column(column, justify="right")
    for row in results:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
