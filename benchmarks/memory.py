"""Peak memory: against TRL's SFTTrainer, and of a 7B model tuned from disk.

    python benchmarks/memory.py peers --peer-python VENV/bin/python   # an interpreter that has trl
    python benchmarks/memory.py streaming --json                      # 15 GB of free disk, and more

*peers*: LoRA of rank 8 on all linear layers of a small random model with a vocabulary of 151,936
in float32; a step of 8 examples of 512 tokens with nothing in common, whose last 8 or 256 tokens
are trained. *streaming*: the top 2 layers of a checkpoint of Qwen2-7B's exact shape with random
bfloat16 weights, the other 26 left on disk. Every measurement has a process of its own; the peak
is its largest resident set, mapped pages included.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

GB = 1e9
BATCH, LENGTH, RANK = 8, 512, 8
VOCABULARY = 151_936
LABELLED = (8, 256)
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
QWEN2_7B = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
TOP, STREAMED_EXAMPLES, STREAMED_LENGTH = 2, 16, 128


def renderings(count: int, length: int, labelled: int, vocabulary: int) -> list:
    """Random tokens, the last `labelled` of them trained."""
    from kilotune.rendering.label_mask import Rendering

    rng = random.Random(0)
    mask = (False,) * (length - labelled) + (True,) * labelled
    return [
        Rendering(f"data:{n}", tuple(rng.randrange(vocabulary) for _ in range(length)), mask,
                  length - labelled)
        for n in range(count)
    ]  # fmt: skip


def train_kilotune(folder: Path, labelled: int, micro: int, *settings: str) -> None:
    """A step as `kilotune run` trains, with its checks and an evaluation."""
    from kilotune.models.freeze import Tunable
    from kilotune.models.source import source_at

    recipe = tuning_recipe("float32", 1, f"tune.micro_batch_size={micro}", *settings)
    model = source_at(folder).model(model_dtype("float32"))
    tunable = Tunable(model, recipe.tune, seed=0)
    items = renderings(BATCH, LENGTH, labelled, VOCABULARY)
    run_tuning(tunable, recipe, items, folder / f"out-{os.getpid()}")


def train_trl(folder: Path, labelled: int, micro: int, *, checkpointing: bool) -> None:
    """The same step by TRL's SFTTrainer, the loss on the same tokens."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from kilotune.models.builtin import make_builtin
    from kilotune.models.source import source_at

    items = renderings(BATCH, LENGTH, labelled, VOCABULARY)
    rows = [
        {"input_ids": list(r.token_ids), "completion_mask": [int(m) for m in r.label_mask]}
        for r in items
    ]
    trainer = SFTTrainer(
        model=source_at(folder).model(model_dtype("float32")),
        processing_class=AutoTokenizer.from_pretrained(make_builtin("smollm2")),
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=str(folder / f"out-{os.getpid()}"),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=BATCH // micro,
            num_train_epochs=1,
            max_length=LENGTH,
            bf16=False,
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            gradient_checkpointing=checkpointing,
        ),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


# name: (trainer, micro-batch, other settings)
CONTENDERS = {
    "kilotune": (train_kilotune, BATCH),
    "kilotune, micro-batches of 1": (train_kilotune, 1),
    "kilotune, top 2 layers, cached": (train_kilotune, BATCH, "tune.layers=top:2"),
    "TRL default (checkpointing)": (train_trl, BATCH, True),
    "TRL without checkpointing": (train_trl, BATCH, False),
    "TRL default, micro-batches of 1": (train_trl, 1, True),
    "TRL without, micro-batches of 1": (train_trl, 1, False),
}


def measure_training(name: str, folder: Path, labelled: int) -> dict[str, object]:
    """In this process: peak and seconds of one contender."""
    train, micro, *more = CONTENDERS[name]
    start = time.perf_counter()
    if train is train_trl:
        train_trl(folder, labelled, micro, checkpointing=more[0])
    else:
        train_kilotune(folder, labelled, micro, *more)
    return {"seconds": time.perf_counter() - start, "peak": peak()}


def measure_streaming(folder: Path) -> dict[str, object]:
    """In this process: the top layers tuned with the others on disk; seconds of each stage."""
    from kilotune.models.freeze import Tunable
    from kilotune.models.source import source_at
    from kilotune.models.streaming import load_streamed, streamed_layers

    recipe = tuning_recipe("bfloat16", 1, f"tune.layers=top:{TOP}")
    seconds, begun = {}, time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal begun
        seconds[stage], begun = time.perf_counter() - begun, time.perf_counter()

    below = QWEN2_7B["num_hidden_layers"] - TOP
    model = load_streamed(source_at(folder), model_dtype("bfloat16"), below)
    lap("load the top")
    tunable = Tunable(model, recipe.tune, seed=0)
    lap("hash every weight")
    items = renderings(STREAMED_EXAMPLES, STREAMED_LENGTH, 4, QWEN2_7B["vocab_size"])
    tuning = run_tuning(tunable, recipe, items, folder / "out")
    lap("states, check and steps")
    proof = tunable.prove()
    lap("hash every weight again")
    tunable.model.save_pretrained(folder / "adapter")
    losses = [line["loss"] for line in tuning.history if "loss" in line]
    trained, total = tunable.parameter_counts()
    assert tuning.cache.used, tuning.cache.reason
    assert len(streamed_layers(model)) == below
    return {
        "peak": peak(),
        "seconds": seconds,
        "parameters": total,
        "trained": trained,
        "steps": tuning.steps,
        "losses": losses,
        "states_bytes": tuning.cache.size,
        "difference": tuning.cache.restart.gradient,
        "states_difference": tuning.cache.states,
        "frozen_tensors": len(proof.frozen),
        "moved_tensors": len(proof.moved),
    }


def tuning_recipe(precision: str, epochs: int, *settings: str):
    """LoRA of rank 8 on all linear layers, steps of 8 examples."""
    from kilotune.recipe.load import load_recipe

    return load_recipe(
        settings={"data": {"train": "random.csv"}},
        overrides=[
            f"model.precision={precision}",
            f"tune.epochs={epochs}",
            f"tune.batch_size={BATCH}",
            f"tune.rank={RANK}",
            "tune.stopping.metric=loss",
            *settings,
        ],
    )


def run_tuning(tunable, recipe, items: list, folder: Path):
    """Train on `items`; validation is one of them, since it must be there."""
    from kilotune.training.tuning import TuningJob, tune

    return tune(tunable, TuningJob(recipe, items, items[:1], 0, folder))


def model_dtype(name: str):
    """The torch type of that name."""
    import torch

    return getattr(torch, name)


def peak() -> int:
    """The largest resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_small(folder: Path) -> dict[str, object]:
    """A random model with a large vocabulary."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen2Config(**SMALL), dtype=torch.float32)
    model.save_pretrained(folder)
    return {"bytes": 4 * sum(p.numel() for p in model.parameters())}


def write_large(folder: Path) -> dict[str, object]:
    """A random checkpoint of Qwen2-7B's shape, written one layer at a time."""
    import numpy
    from accelerate import init_empty_weights
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(**QWEN2_7B, dtype="bfloat16", architectures=["Qwen2ForCausalLM"])
    config.save_pretrained(folder)
    with init_empty_weights():
        shapes = {
            n: p.shape for n, p in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    groups: dict[str, list[str]] = {}
    for name in shapes:
        number = name.split(".")[2] if ".layers." in name else name.split(".")[-2]
        groups.setdefault(number, []).append(name)
    rng = numpy.random.default_rng(0)
    weight_map, total = {}, 0
    for number, names in groups.items():
        tensors = {name: random_weight(name, shapes[name], rng) for name in names}
        file = f"model-{number}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
        total += sum(t.nbytes for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return {"bytes": total}


def random_weight(name: str, shape, rng):
    """Norms of one, everything else normal, of a deviation that keeps activations tame."""
    import torch

    if name.endswith("norm.weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    values = torch.empty(shape.numel(), dtype=torch.bfloat16)
    for part in values.split(1 << 24):  # numpy draws several times faster than torch
        part.copy_(torch.from_numpy(rng.standard_normal(len(part), dtype="float32")).mul_(0.02))
    return values.view(shape)


CHILDREN = {
    "small": lambda folder, _name, _labelled: write_small(folder),
    "large": lambda folder, _name, _labelled: write_large(folder),
    "train": lambda folder, name, labelled: measure_training(name, folder, labelled),
    "stream": lambda folder, _name, _labelled: measure_streaming(folder),
}


def child(python: str, task: str, folder: Path, name: str = "", labelled: int = 0) -> dict:
    """Run one task in a process of its own; its last line is a JSON document."""
    command = [python, __file__, "--child", task, str(folder), name, str(labelled)]
    environment = {**os.environ, "KILOTUNE_CACHE": str(folder / "cache")}
    if task == "train" and name.startswith("TRL"):
        environment.pop("KILOTUNE_CACHE")  # the tokenizer is in the user's own
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{task} {name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare_peers(peer_python: str, labelled: tuple[int, ...]) -> dict[str, object]:
    """Peak of every contender, and of a process that only loads the model's bytes."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = child(sys.executable, "small", folder)["bytes"]
        for count in labelled:
            for name in CONTENDERS:
                python = peer_python if name.startswith("TRL") else sys.executable
                found = child(python, "train", folder, name, count)
                results.append({"contender": name, "labelled": count, **found})
                print(f"{name}, {count} trained: {found['peak'] / GB:.2f} GB", file=sys.stderr)
    return {"weights_bytes": weights, "contenders": results}


def stream(scratch: Path | None) -> dict[str, object]:
    """Write the large checkpoint, tune its top, remove it."""
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        folder = Path(temporary)
        free = shutil.disk_usage(folder).free
        if free < 20 * GB:
            raise SystemExit(
                f"20 GB of free disk are needed in {folder}, {free / GB:.0f} are there"
            )
        start = time.perf_counter()
        size = child(sys.executable, "large", folder)["bytes"]
        written = time.perf_counter() - start
        found = child(sys.executable, "stream", folder)
    return {"checkpoint_bytes": size, "seconds_to_write": written, **found}


def print_peers(result: dict) -> None:
    """A line a contender."""
    table = Table("trained tokens", "contender", "peak GB", "above the weights", "s", title="peers")
    for row in result["contenders"]:
        table.add_row(
            str(row["labelled"]),
            row["contender"],
            f"{row['peak'] / GB:.2f}",
            f"{(row['peak'] - result['weights_bytes']) / GB:.2f}",
            f"{row['seconds']:.0f}",
        )
    Console(width=100).print(table)


def print_streaming(result: dict) -> None:
    """Peak, sizes and the seconds of each stage."""
    table = Table("what", "figure", title="streaming: Qwen2-7B's shape, top 2 layers")
    table.add_row("parameters", f"{result['parameters']:,}")
    table.add_row("checkpoint", f"{result['checkpoint_bytes'] / GB:.1f} GB")
    table.add_row("peak memory", f"{result['peak'] / GB:.2f} GB ({result['peak'] / 2**30:.2f} GiB)")
    table.add_row("gradient, restarted against plain", f"{result['difference']:.1e}")
    table.add_row("stored states against fresh", f"{result['states_difference']:.1e}")
    table.add_row("steps", str(result["steps"]))
    table.add_row("write the checkpoint", f"{result['seconds_to_write']:.0f} s")
    for stage, seconds in result["seconds"].items():
        table.add_row(stage, f"{seconds:.0f} s")
    Console(width=100).print(table)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=["peers", "streaming", []])
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter with trl")
    parser.add_argument("--labelled", nargs="+", type=int, default=LABELLED)
    parser.add_argument("--scratch", type=Path, help="where the large checkpoint goes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task, folder, name, labelled = options.child
        print(json.dumps(CHILDREN[task](Path(folder), name, int(labelled))))
        return
    parts = options.parts or ["peers", "streaming"]
    results: dict[str, object] = {"machine": {"cores": os.cpu_count(),
                                              "memory": psutil.virtual_memory().total}}  # fmt: skip
    if "peers" in parts:
        results["peers"] = compare_peers(options.peer_python, tuple(options.labelled))
        print_peers(results["peers"])
    if "streaming" in parts:
        results["streaming"] = stream(options.scratch)
        print_streaming(results["streaming"])
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
