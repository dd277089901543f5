#!/usr/bin/env bash
# transformers' Trainer resumes from a checkpoint written with `save_only_model=True`, or from one
# whose optimizer.pt is gone, without a word: the step count goes on, the optimiser's moments and the
# learning rate schedule begin anew.
#
# Seen 2026-11-30 with transformers 5.24.0, accelerate 1.15.0, torch 2.14.1: `_load_optimizer_and_
# scheduler` loads both "if they exist" and is silent if one of them does not. After resuming at
# step 4 of 8 with a linear schedule the rate is that of step 1 (no decay so far), while
# `global_step` says 5; weights and losses differ from the uninterrupted run's. With verbosity at
# its most talkative nothing mentions optimizer, scheduler or the checkpoint's lack of them. One
# would guess an error, as the argument's documentation says that such a checkpoint cannot be
# resumed from; the trainer does it all the same.
#
# Prints what it sees; exits with 1 if any of it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv v
v/bin/pip install --quiet transformers==5.24.0 accelerate==1.15.0 torch==2.14.1

cat > resume.py <<'PY'
import logging, shutil, sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.utils import logging as said

said.set_verbosity_debug()
rows = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(16)]

def train(folder, resume=None, **more):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2))
    trainer = Trainer(model=model, train_dataset=rows, args=TrainingArguments(
        output_dir=folder, per_device_train_batch_size=2, max_steps=8, learning_rate=1e-2,
        lr_scheduler_type="linear", logging_steps=1, save_steps=4, report_to="none", use_cpu=True,
        disable_tqdm=True, **more))
    trainer.train(resume_from_checkpoint=resume)
    return {line["step"]: line for line in trainer.state.log_history if "loss" in line}

whole = train("whole")
same = train("same", "whole/checkpoint-4")
bare = train("bare", save_only_model=True)
resumed = train("resumed", "bare/checkpoint-4")
rates = [f"{log[step]['learning_rate']:.6f}" for log, step in
         ((whole, 1), (whole, 5), (same, 5), (resumed, 5))]
print("rates:", *rates)
print("losses of step 8:", *(f"{log[8]['loss']:.4f}" for log in (whole, same, resumed)))
assert rates[1] == rates[2], "a whole checkpoint goes on where it was"
assert rates[3] == rates[0] != rates[1], "one without an optimiser begins the schedule anew"
assert whole[8]["loss"] == same[8]["loss"] != resumed[8]["loss"]
PY
v/bin/python resume.py > out.txt 2> err.txt || { cat out.txt err.txt; exit 1; }
grep "rates:\|losses of" out.txt
if grep -i "optimizer.pt\|scheduler.pt\|optimizer state\|without.*optimizer" out.txt err.txt; then
    echo "something is said now"
    exit 1
fi
echo "as seen"
