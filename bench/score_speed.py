"""Seconds to choose among 8 labels, against lm-evaluation-harness and plain `model.generate`.

    python bench/score_speed.py                             # 400 articles, float32
    python bench/score_speed.py --dtype bfloat16 --json

Needs lm-eval (`pip install lm-eval`). Articles of Reuters R8 cut to 64 tokens behind an
instruction that describes each label, put to SmolLM2-135M-Instruct. The contenders take turns at
the same articles, some at a time, so that a busy machine slows them all. The harness gets what
its multiple-choice tasks give it: the prompt as context, each label as continuation (without the
token that ends an answer, which kilotune scores as well). "Same choice" counts the articles for
which a contender names the label that kilotune's scores name; each chooses by the sum.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from quality import write_r8
from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig

from kilotune.cli.terminal import quieten_libraries
from kilotune.data.example import Example, Message, Origin
from kilotune.evaluate.metrics import parse_label
from kilotune.generate.decode import generate, generation_config
from kilotune.generate.prefix import common_prefix
from kilotune.generate.score import label_ids, score_labels
from kilotune.models.builtin import make_builtin
from kilotune.models.load import load_model, load_tokenizer
from kilotune.progress import Silent
from kilotune.recipe.schema import DecodingSettings, ModelSettings
from kilotune.render.template import ChatTemplate, chat_template
from kilotune.render.wording import wording

LABELS = {
    "acq": "mergers, takeovers and stakes that one company buys in another",
    "crude": "crude oil, its producers, prices and pipelines",
    "earn": "earnings, dividends and other figures that a company reports",
    "grain": "wheat, maize, rice and other grain, harvests and exports",
    "interest": "interest rates and what central banks do about them",
    "money-fx": "currencies, exchange rates and money markets",
    "ship": "shipping, ports, tankers and strikes of seamen",
    "trade": "trade between countries, tariffs, deficits and disputes",
}
GUIDE = "Name the topic of the article, one of these:\n" + "\n".join(
    f"{label}: {about}" for label, about in LABELS.items()
)
NAMES = list(LABELS)
OURS, HARNESS, GENERATE = "kilotune scores", "lm-eval, batch", "model.generate, batch"

Prompts = Sequence[list[int]]
Contender = Callable[[Prompts], list[str]]


def main() -> None:
    """Let every contender label every article, and print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--articles", type=int, default=400)
    parser.add_argument("--at-a-time", type=int, default=50)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--harness-batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--json", action="store_true", help="one JSON document as the last line")
    options = parser.parse_args()
    quieten_libraries()
    settings, folder = ModelSettings(), str(make_builtin("smollm2"))
    model = load_model(folder, settings, getattr(torch, options.dtype))
    template = chat_template(load_tokenizer(folder, settings))
    prompts = read_prompts(template, options.articles)
    by_name = contenders(model, template, options.harness_batch)
    seconds = dict.fromkeys(by_name, 0.0)
    said: dict[str, list[str]] = {name: [] for name in by_name}
    for start in range(0, len(prompts), options.at_a_time):
        for name, contender in by_name.items():
            begin = time.perf_counter()
            said[name] += contender(prompts[start : start + options.at_a_time])
            seconds[name] += time.perf_counter() - begin
    results = [
        {
            "contender": name,
            "seconds": round(taken, 2),
            "times_slower": round(taken / seconds[OURS], 2),
            "same_choice": sum(a == b for a, b in zip(said[name], said[OURS], strict=True)),
        }
        for name, taken in seconds.items()
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


def contenders(model, template: ChatTemplate, harness_batches: list[int]) -> dict[str, Contender]:
    """Ways to label prompts, each giving a label for each."""
    pad_id = template.tokenizer.pad_token_id
    labels = label_ids(template, NAMES)
    config = generation_config(
        DecodingSettings(), answer_tokens=max(map(len, labels)), stop_ids=[template.stop_id],
        pad_id=pad_id,
    )  # fmt: skip

    def scored(prompts: Prompts) -> list[str]:
        found = score_labels(model, prompts, labels, pad_id=pad_id, progress=Silent())
        return [best(scores.log_likelihoods) for scores in found]

    def generated(prompts: Prompts) -> list[str]:
        answers = generate(model, template.tokenizer, prompts, config, seed=0, progress=Silent())
        return [parse_label(answer.text, NAMES) for answer in answers]

    every: dict[str, Contender] = {OURS: scored, "kilotune generates": generated}
    every[f"{GENERATE} 16"] = plain_generate(model, template.tokenizer, config)
    for size in harness_batches:
        every[f"{HARNESS} {size}"] = harness(model, template.tokenizer, size)
    return every


def plain_generate(model, tokenizer, config: GenerationConfig) -> Contender:
    """transformers alone: batches of 16 prompts of about the same length, padded on the left."""

    def label(prompts: Prompts) -> list[str]:
        said = [""] * len(prompts)
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
                said[index] = parse_label(text, NAMES)
        return said

    return label


def harness(model, tokenizer, batch_size: int) -> Contender:
    """lm-evaluation-harness's own scoring of multiple choice, its cache of contexts included."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal")

    def label(prompts: Prompts) -> list[str]:
        requests = [
            Instance("loglikelihood", {}, (tokenizer.decode(prompt), name), index)
            for index, prompt in enumerate(prompts)
            for name in NAMES
        ]
        sums = [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]
        return [best(sums[i : i + len(NAMES)]) for i in range(0, len(sums), len(NAMES))]

    return label


def best(sums: Sequence[float]) -> str:
    """The label with the highest sum."""
    return NAMES[max(range(len(NAMES)), key=lambda index: sums[index])]


def print_table(title: str, results: list[dict]) -> None:
    """A line a contender."""
    table = Table("contender", title=title)
    for column in ("seconds", "times slower", "same choice"):
        table.add_column(column, justify="right")
    for row in results:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
