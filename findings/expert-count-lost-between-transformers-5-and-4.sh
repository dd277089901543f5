#!/usr/bin/env bash
# A Qwen3-MoE saved by transformers 5 cannot be loaded by transformers 4.57, unless it happens to
# have 128 experts: 5 renames the key that says how many there are, and 4.57 takes its default.
#
# Seen 2026-12-01 with transformers 5.24.0 and 4.57.6 (torch 2.14.1): the config of 4.57.6 says
# `num_experts`; transformers 5 reads that and writes `num_local_experts` alone, while
# `num_experts_per_tok` keeps its name, and so do the weights of each expert. 4.57.6 does not know
# the new key, keeps it as an attribute of no effect, builds the router for 128 experts and fails
# with "size mismatch for weight", of a "Linear" that it does not name. The error speaks of neither
# the key nor the version, so it looks like a broken file of weights. One would guess that a library
# that still reads `num_experts` also writes it. With `num_experts` beside it the model loads and
# computes the same.
#
# Prints what it sees; exits with 1 if any of it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

for version in 5.24.0 4.57.6; do
    python3 -m venv "v$version"
    "v$version/bin/pip" install --quiet "transformers==$version"
done
v5.24.0/bin/pip install --quiet torch==2.14.1
# Both use one torch: what 4.57.6 does not have of its own it finds with 5.24.0.
site='import sysconfig; print(sysconfig.get_path("purelib"))'
v5.24.0/bin/python -c "$site" > "$(v4.57.6/bin/python -c "$site")/torch.pth"

cat > publish.py <<'PY'
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
torch.manual_seed(0)
model = Qwen3MoeForCausalLM(Qwen3MoeConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, head_dim=8,
    num_attention_heads=4, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2,
    moe_intermediate_size=16)).eval()
model.save_pretrained("published")
torch.save(model(torch.arange(40)[None]).logits, "logits.pt")
PY
v4.57.6/bin/python publish.py

cat > save.py <<'PY'
import json
import torch
from safetensors import safe_open
from transformers import Qwen3MoeForCausalLM
model = Qwen3MoeForCausalLM.from_pretrained("published").eval()
model.save_pretrained("saved")
assert (model(torch.arange(40)[None]).logits - torch.load("logits.pt")).abs().max() < 1e-5
for version, folder in (("4.57.6", "published"), ("5.24.0", "saved")):
    written = json.load(open(f"{folder}/config.json"))
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        names = sorted(file.keys())
    print(version, "writes", {k: v for k, v in sorted(written.items()) if "experts" in k},
          "and", len(names), "tensors")
    assert folder == "published" or names == before, "the same names"
    before = names
PY
v5.24.0/bin/python save.py 2>/dev/null | tee written.txt
grep -q "4.57.6 writes {'num_experts': 4, 'num_experts_per_tok': 2}" written.txt
grep -q "5.24.0 writes {'num_experts_per_tok': 2, 'num_local_experts': 4}" written.txt

cp -r saved both
python3 - <<'PY'
import json
config = json.load(open("both/config.json"))
json.dump({**config, "num_experts": 4}, open("both/config.json", "w"))
PY

cat > load.py <<'PY'
import sys
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
config = Qwen3MoeConfig.from_pretrained(sys.argv[1])
try:
    model = Qwen3MoeForCausalLM.from_pretrained(sys.argv[1]).eval()
except RuntimeError as error:
    print(f"{config.num_experts} experts;", " ".join(str(error).split()))
else:
    apart = (model(torch.arange(40)[None]).logits - torch.load("logits.pt")).abs().max().item()
    print(f"{config.num_experts} experts;", "the same logits" if apart < 1e-5 else "OTHER logits")
PY
echo "4.57.6, as transformers 5 saved it: $(v4.57.6/bin/python load.py saved 2>/dev/null | tee saved.txt)"
echo "4.57.6, with num_experts beside it: $(v4.57.6/bin/python load.py both 2>/dev/null | tee both.txt)"
grep -q "^128 experts; .*Linear: size mismatch for weight: .*\[4, 32\].*\[128, 32\]" saved.txt
if grep -q "num_experts\|num_local_experts\|version" saved.txt; then
    echo "the error says more now"
    exit 1
fi
grep -qx "4 experts; the same logits" both.txt
echo "as seen"
