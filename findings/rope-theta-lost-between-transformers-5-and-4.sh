#!/usr/bin/env bash
# A model whose rotary base is not 10,000, saved by transformers 5, computes something else in
# transformers 4.57 and in mlx-lm, and neither says a word.
#
# Seen 2026-11-30 with transformers 5.24.0 and 4.57.6 (torch 2.14.1) and mlx-lm 0.32.2:
# transformers 5 writes the base under `rope_parameters` alone. transformers 4.57.6 and mlx-lm look
# for `rope_theta` at the top level, do not find it, and take their default of 10,000. Every weight
# loads, no key is missing, no warning comes, and the logits are another model's. (SmolLM2, whose
# base is 100,000, answers in babble.) One would guess either a warning or, as the key
# `rope_parameters` was introduced by a library that bumps a major version, a refusal.
# With `rope_theta` written beside `rope_parameters` all three agree.
#
# Prints what it sees; exits with 1 if any of it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

for version in 5.24.0 4.57.6; do
    python3 -m venv "v$version"
    "v$version/bin/pip" install --quiet "transformers==$version" torch==2.14.1
done
python3 -m venv vmlx
vmlx/bin/pip install --quiet mlx==0.32.4 mlx-cpu==0.32.4 mlx-lm==0.32.2

cat > save.py <<'PY'
import json
import torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
)
model = LlamaForCausalLM(config).eval()
model.save_pretrained("plain")
torch.save(model(torch.arange(40)[None]).logits, "logits.pt")
written = json.load(open("plain/config.json"))
print("transformers 5 writes:", {k: v for k, v in written.items() if "rope" in k})
PY
v5.24.0/bin/python save.py 2>/dev/null | tee written.txt
grep -q "'rope_parameters': {'rope_theta': 100000.0, 'rope_type': 'default'}}" written.txt

cp -r plain both
python3 - <<'PY'
import json
config = json.load(open("both/config.json"))
json.dump({**config, "rope_theta": 100000.0}, open("both/config.json", "w"))
PY

cat > load.py <<'PY'
import sys, warnings
import torch
from transformers import LlamaForCausalLM
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    model, info = LlamaForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
rope = [str(w.message) for w in said if "rope" in str(w.message).lower()]
apart = (model.eval()(torch.arange(40)[None]).logits - torch.load("logits.pt")).abs().max().item()
same = "the same logits" if apart < 1e-5 else "OTHER logits"
print(f"{same}; base {model.config.rope_theta:g}; missing {sorted(info['missing_keys'])}; warnings {rope}")
PY
echo "4.57.6, as transformers 5 saved it: $(v4.57.6/bin/python load.py plain 2>err.txt | tee plain.txt)"
echo "4.57.6, with rope_theta beside it:  $(v4.57.6/bin/python load.py both 2>/dev/null | tee both.txt)"
grep -q "OTHER logits; base 10000; missing \[\]; warnings \[\]" plain.txt
! grep -qi rope err.txt
grep -q "the same logits; base 100000" both.txt

cat > base.py <<'PY'
import json, sys
from mlx_lm.models.llama import ModelArgs
print(f"{ModelArgs.from_dict(json.load(open(sys.argv[1]))).rope_theta:g}")
PY
echo "mlx-lm takes the base as $(vmlx/bin/python base.py plain/config.json | tee mlx.txt)"
grep -qx 10000 mlx.txt
echo "as seen"
