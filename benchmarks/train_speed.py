"""Seconds a training step against TRL's SFTTrainer, on the same tokens, in one run.

    python benchmarks/train_speed.py                      # all workloads, three rounds
    python benchmarks/train_speed.py guide --rounds 5 --json

Needs trl (`pip install trl`). LoRA of rank 8 on all linear layers of SmolLM2-135M, batch 8, on
articles of Reuters R8. *short*: a short instruction, articles cut to 64 tokens. *guide*: an
instruction that describes each label. *nothing*: 160 tokens of which nothing is shared. *-top6*:
adapters on the top 6 of 30 layers alone, kilotune with the states below them kept; what keeping
them took is counted apart, as a multiple of a plain forward of the same examples. Each contender
trains for a few steps a round, in turn; the first step of a round is not counted.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from r8 import GUIDE, INSTRUCTION, LABELS, articles
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

from kilotune.cli.terminal import quieten_libraries
from kilotune.models.builtin import make_builtin
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.progress import Bar, Silent
from kilotune.recipe.load import load_recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import collate
from kilotune.training.packing import lay_out
from kilotune.training.tuning import Hooks, TuningJob, tune

BATCH, RANK, LAYERS = 8, 8, 30
PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")
# Seconds on the wall; with --busy the processor's own, of one thread, which other work on the
# machine does not stretch.
CLOCK: Callable[[], float] = time.perf_counter
SHORT = f"{INSTRUCTION}. Topics: {', '.join(LABELS)}."


@dataclass(frozen=True)
class Workload:
    """What is trained on: an instruction that all examples share, and tokens of an article.

    `top` says how many upper layers have adapters.
    """

    instruction: str
    article_tokens: int
    top: int = LAYERS


WORKLOADS = {
    "short": Workload(SHORT, 64),
    "guide": Workload(GUIDE, 64),
    "nothing": Workload("", 150),
    "guide-top6": Workload(GUIDE, 64, top=6),
    "nothing-top6": Workload("", 150, top=6),
}


@dataclass(frozen=True)
class Contender:
    """A way to train: `run` gives the seconds of each step but the first on some examples."""

    name: str
    dtype: torch.dtype
    run: Callable[[list[Rendering], Workload, torch.dtype], list[float]]


def examples(workload: Workload, tokenizer, count: int) -> list[Rendering]:
    """Articles drawn from R8's training part, as token ids with a mask of the answer."""
    rows = articles("train")
    made = []
    for number, row in enumerate(random.Random(0).sample(rows, len(rows))):
        article = tokenizer.encode(row["text"], add_special_tokens=False)
        article = article[: workload.article_tokens]
        if len(article) < workload.article_tokens and not workload.instruction:
            continue
        prompt, end = wrapped(workload.instruction, tokenizer.decode(article), tokenizer)
        answer = tokenizer.encode(row["label"] + end, add_special_tokens=False)
        mask = [False] * len(prompt) + [True] * len(answer)
        made.append(Rendering(str(number), (*prompt, *answer), tuple(mask), len(prompt)))
    return made[:count]


def wrapped(instruction: str, article: str, tokenizer) -> tuple[list[int], str]:
    """The prompt, and the text that ends an answer."""
    if not instruction:
        return tokenizer.encode(f"{article}\nTopic: ", add_special_tokens=False), "<|im_end|>"
    turns = [{"role": "system", "content": instruction}, {"role": "user", "content": article}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False), "<|im_end|>"


class FillTime(Silent):
    """Progress that times the filling of the hidden-state cache."""

    seconds = 0.0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """As any other bar."""
        start = CLOCK()
        with super().bar(title, total) as bar:
            yield bar
        if title == "hidden states":
            self.seconds = CLOCK() - start


FILLED: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}


def kilotune_steps(items: list[Rendering], work: Workload, dtype: torch.dtype) -> list[float]:
    """As `kilotune run` trains, its check of the first batch left out of the time.

    With fewer layers tuned the states below them are kept before the first step, so that every
    step counted is like one of a second epoch.
    """
    precision = str(dtype).removeprefix("torch.")
    recipe = load_recipe(
        settings={"data": {"train": "r8.csv"}},
        overrides=[
            f"model.precision={precision}",
            "tune.epochs=1",
            f"tune.batch_size={BATCH}",
            f"tune.layers={'all' if work.top == LAYERS else f'top:{work.top}'}",
            "tune.stopping.metric=loss",
        ],
    )
    model = source_at(make_builtin("smollm2")).model(dtype)
    tunable = Tunable(model, recipe.tune, seed=0)
    at: list[float] = []
    fill = FillTime()

    def on_log(line: dict[str, float]) -> None:
        if "loss" in line:
            at.append(CLOCK())

    # The cache of an earlier round would make the filling look free.
    with tempfile.TemporaryDirectory() as folder, cache_in(folder):
        job = TuningJob(recipe, items, items[:1], 0, Path(folder))
        measure = lambda _model: {"accuracy": 0.0, "macro_f1": 0.0}  # noqa: E731
        tuning = tune(tunable, job, Hooks(measure, on_log, progress=fill))
    assert tuning.agreement.packed, tuning.agreement.reason
    assert tuning.cache.used == (work.top < LAYERS), tuning.cache.reason
    if tuning.cache.used:
        FILLED[dtype].append(fill.seconds / plain_forward(model, items))
    return between(at)


@contextmanager
def cache_in(folder: str) -> Iterator[None]:
    """Inside the `with`, kilotune's cache is that folder."""
    before = os.environ.get("KILOTUNE_CACHE")
    os.environ["KILOTUNE_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["KILOTUNE_CACHE"]
        if before is not None:
            os.environ["KILOTUNE_CACHE"] = before


def plain_forward(model, items: list[Rendering]) -> float:
    """Seconds of one forward of all examples in padded batches, logits where they are trained."""
    start = CLOCK()
    with torch.no_grad():
        for first in range(0, len(items), BATCH):
            batch = collate(items[first : first + BATCH], pad_id=0)
            model(**batch.inputs(), logits_to_keep=batch.columns, use_cache=False)
    return CLOCK() - start


def trl_steps(
    items: list[Rendering], work: Workload, dtype: torch.dtype, **settings: object
) -> list[float]:
    """TRL's SFTTrainer on the same token ids, loss on the answers alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": list(r.token_ids), "completion_mask": [int(m) for m in r.label_mask]}
        for r in items
    ]
    source = make_builtin("smollm2")
    at: list[float] = []

    class Clock(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs) -> None:
            if "loss" in (logs or {}):
                at.append(CLOCK())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=source_at(source).model(dtype),
            processing_class=AutoTokenizer.from_pretrained(source),
            train_dataset=Dataset.from_list(rows),
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                learning_rate=5e-4,
                bf16=dtype == torch.bfloat16,
                use_cpu=True,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **settings,
            ),
            peft_config=LoraConfig(
                r=RANK,
                lora_alpha=16,
                # By name: peft takes no layers with "all-linear".
                target_modules=[f"{name}_proj" for name in PROJECTIONS],
                layers_to_transform=list(range(LAYERS - work.top, LAYERS)),
                task_type="CAUSAL_LM",
            ),
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return between(at)


def between(at: list[float]) -> list[float]:
    """Seconds from the end of one step to the end of the next: collating and logging included."""
    return [after - before for before, after in pairwise(at)]


def trl_best(items: list[Rendering], work: Workload, dtype: torch.dtype) -> list[float]:
    """Without gradient checkpointing, which is on by default."""
    return trl_steps(items, work, dtype, gradient_checkpointing=False)


def trl_best_flat(items: list[Rendering], work: Workload, dtype: torch.dtype) -> list[float]:
    """The same, examples laid end to end in place of padding."""
    settings = {"gradient_checkpointing": False, "padding_free": True, "max_length": None}
    return trl_steps(items, work, dtype, **settings)


TRL_32, TRL_16 = "TRL default float32", "TRL default bfloat16"
OURS_32, OURS_16 = "kilotune float32", "kilotune bfloat16"
BEST, BEST_FLAT = "TRL best: no checkpointing", "TRL best: and padding-free"
CONTENDERS = (
    Contender(OURS_32, torch.float32, kilotune_steps),
    Contender(TRL_32, torch.float32, trl_steps),
    Contender(OURS_16, torch.bfloat16, kilotune_steps),
    Contender(TRL_16, torch.bfloat16, trl_steps),
    Contender(BEST, torch.bfloat16, trl_best),
    Contender(BEST_FLAT, torch.bfloat16, trl_best_flat),
)


def peak(dtype: torch.dtype, size: int = 2048) -> float:
    """The most floating-point operations a second that a matrix product reached here."""
    a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
    seconds = []
    for _ in range(12):
        start = CLOCK()
        a @ b
        seconds.append(CLOCK() - start)
    return 2 * size**3 / min(seconds)


def useful(items: list[Rendering], work: Workload) -> float:
    """Floating-point operations that the average step cannot do without, forward and backward.

    Of the layers with adapters alone: what is below them is kept.

    Frozen weights take one product forward and one backward for each token of a pack, adapters
    one and two more, attention what is not masked out, the head its labelled tokens.
    """
    model = source_at(make_builtin("smollm2")).model(torch.float32)
    config = model.config
    upper = model.model.layers[LAYERS - work.top :]
    linear = [m for m in upper.modules() if isinstance(m, torch.nn.Linear)]
    frozen = sum(m.weight.numel() for m in linear)
    adapters = sum(RANK * (m.in_features + m.out_features) for m in linear)
    total = 0.0
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        layout = lay_out([r.token_ids for r in batch])
        seen = sum(place + 1 for _, place in layout.source)
        per_pair = 2 * 2 * work.top * config.hidden_size
        labelled = sum(sum(r.label_mask) for r in batch)
        total += len(layout.source) * (4 * frozen + 6 * adapters) + 3 * per_pair * seen
        total += 4 * labelled * config.hidden_size * config.vocab_size
    return total / (len(items) / BATCH)


def measure(name: str, rounds: int, steps: int, tokenizer) -> dict[str, object]:
    """All contenders in turn, `rounds` times; medians, ratios and shares of the peak."""
    work = WORKLOADS[name]
    items = examples(work, tokenizer, BATCH * (steps + 1))
    seconds: dict[str, list[float]] = {contender.name: [] for contender in CONTENDERS}
    peaks: dict[torch.dtype, float] = {}
    for filled in FILLED.values():
        filled.clear()
    for _ in range(rounds):
        for contender in CONTENDERS:
            # All of a round's steps together: which examples meet in one, each decides for itself.
            steps_taken = contender.run(items, work, contender.dtype)
            seconds[contender.name].append(statistics.mean(steps_taken))
        for dtype in (torch.float32, torch.bfloat16):
            peaks[dtype] = max(peaks.get(dtype, 0.0), peak(dtype))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    best = min(median[BEST], median[BEST_FLAT])
    lengths = [len(r.token_ids) for r in items]
    flops = useful(items, work)
    return {
        "workload": name,
        "tokens_an_example": statistics.mean(lengths),
        "shared": len(items[0].token_ids)
        - len(lay_out([r.token_ids for r in items[:2]]).source)
        + len(items[1].token_ids),
        "seconds": median,
        "fastest": {name: min(times) for name, times in seconds.items()},
        "samples": len(seconds[OURS_32]),
        "tokens_a_second": {
            name: BATCH * statistics.mean(lengths) / s for name, s in median.items()
        },
        "ratios": {
            "TRL default, float32": median[TRL_32] / median[OURS_32],
            "TRL default, bfloat16": median[TRL_16] / median[OURS_16],
            "TRL best": best / median[OURS_16],
        },
        "filling_in_plain_forwards": {
            str(d).removeprefix("torch."): statistics.median(times)
            for d, times in FILLED.items()
            if times
        },
        "peak_gflops": {str(d).removeprefix("torch."): p / 1e9 for d, p in peaks.items()},
        "share_of_peak": {
            OURS_32: flops / median[OURS_32] / peaks[torch.float32],
            OURS_16: flops / median[OURS_16] / peaks[torch.bfloat16],
        },
    }


def print_table(results: list[dict]) -> None:
    """A line a contender."""
    table = Table("workload", "contender", "s a step", "fastest", "tokens/s", "of peak", "ratio")
    for result in results:
        ours = {
            torch.float32: result["seconds"][OURS_32],
            torch.bfloat16: result["seconds"][OURS_16],
        }
        for contender in CONTENDERS:
            name = contender.name
            share = result["share_of_peak"].get(name)
            table.add_row(
                f"{result['workload']} ({result['shared']} shared)",
                name,
                f"{result['seconds'][name]:.2f}",
                f"{result['fastest'][name]:.2f}",
                f"{result['tokens_a_second'][name]:.0f}",
                f"{share:.0%}" if share else "",
                f"{result['seconds'][name] / ours[contender.dtype]:.1f}",
            )
        if filled := result["filling_in_plain_forwards"]:
            costs = ", ".join(f"{cost:.2f} in {precision}" for precision, cost in filled.items())
            table.caption = f"Keeping the states took, in plain forwards: {costs}"
    Console(width=120).print(table)


def main() -> None:
    """Run the workloads asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=WORKLOADS, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="counted steps a round")
    parser.add_argument("--busy", action="store_true", help="one thread, processor seconds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.busy:
        global CLOCK
        CLOCK = time.process_time
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    quieten_libraries()
    tokenizer = AutoTokenizer.from_pretrained(make_builtin("smollm2"))
    results = []
    for name in options.workloads or WORKLOADS:
        results.append(measure(name, options.rounds, options.steps, tokenizer))
        print_table(results[-1:])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
