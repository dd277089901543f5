"""TRL's SFTTrainer: prompt and completion as conversations, the loss on the completion.

Greedy answers by transformers' own `generate`.
"""

from collections.abc import Mapping

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.per_label.worker import Job, Learnt

BATCH = 16
MARGIN = 8

# Its documentation's LoRA: rank 16 and alpha 32 with dropout 0.05 (the defaults of its command
# line) on all linear layers, 2e-4, batches of 8; three epochs.
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
DOCUMENTED = {"learning_rate": 2e-4, "per_device_train_batch_size": 8, "num_train_epochs": 3}
# LLaMA-Factory's examples/train_lora/llama3_lora_sft.yaml.
FACTORY_LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0}
FACTORY = {
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "num_train_epochs": 3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
}


def documented(job: Job) -> Learnt:
    """TRL's documented settings."""
    return _tuned(job, LORA, DOCUMENTED)


def factory(job: Job) -> Learnt:
    """LLaMA-Factory's documented rate, batch, epochs and rank."""
    return _tuned(job, FACTORY_LORA, FACTORY)


def _tuned(job: Job, lora: Mapping[str, object], settings: Mapping[str, object]) -> Learnt:
    rows = [
        {"prompt": list(prompt), "completion": [{"role": "assistant", "content": answer}]}
        for prompt, answer in zip(job.prompts, job.answers, strict=True)
    ]
    trainer = SFTTrainer(
        model=job.model,
        train_dataset=Dataset.from_list(rows),
        args=SFTConfig(
            output_dir=f"{job.scratch}/trl",
            seed=job.seed,
            # As the model is published, and as kilotune loads it.
            model_init_kwargs={"dtype": "bfloat16"},
            use_cpu=not torch.cuda.is_available(),
            # Its figures are the same without, and it is faster.
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **settings,
        ),
        peft_config=LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", **lora),
    )
    trainer.train()
    return Learnt(lambda: _answers(job, trainer.model))


def _answers(job: Job, model: torch.nn.Module) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(job.model, padding_side="left")
    named = job.labels if job.kind == "classify" else job.answers
    longest = max(len(tokenizer.encode(answer)) for answer in named) + MARGIN
    texts = [
        tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
        for turns in job.asked
    ]
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    said = [""] * len(texts)
    model.eval()
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        inputs = tokenizer(
            [texts[row] for row in rows],
            padding=True, add_special_tokens=False, return_tensors="pt",
        ).to(model.device)  # fmt: skip
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        width = inputs["input_ids"].shape[1]
        for row, ids in zip(rows, output[:, width:], strict=True):
            said[row] = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return said
