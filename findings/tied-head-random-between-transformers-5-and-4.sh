#!/usr/bin/env bash
# A Qwen2-VL with tied embeddings, as published, saved by transformers 5, gets a random output layer
# in transformers 4.57: its answers are noise, and other noise with each load.
#
# Seen 2026-12-01 with transformers 5.24.0 and 4.57.6 (torch 2.14.1): the published config.json is
# flat, with `tie_word_embeddings` at its top level. 4.57.6 hands the flat keys on to the language
# model's config, and ties. Saved by transformers 5 there is a `text_config`, `tie_word_embeddings`
# stays outside it, and the file of weights holds no lm_head.weight, being tied. 4.57.6 looks for
# the key in `text_config` alone, where its default is false, and draws a new lm_head. All that is
# said is a warning that lm_head.weight is "newly initialized"; from_pretrained succeeds. One would
# guess that `tie_word_embeddings` of the whole model ties the whole model, as it does in both
# versions for the file as published. With the key in `text_config` as well the logits are the same.
# (`rope_scaling`, which 5 renames too and without which 4.57.6 raises a TypeError when this model is
# run, is put back here before these loads; the rotary base is the default.)
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
import json
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
torch.manual_seed(0)
published = {
    "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl",
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2,
    "tie_word_embeddings": True, "torch_dtype": "float32", "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4},
}
model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**published)).eval()
model.save_pretrained("published")
json.dump(published, open("published/config.json", "w"))
torch.save(model(torch.arange(40)[None]).logits, "logits.pt")
PY
v4.57.6/bin/python publish.py

cat > save.py <<'PY'
import json
import torch
from safetensors import safe_open
from transformers import Qwen2VLForConditionalGeneration
model = Qwen2VLForConditionalGeneration.from_pretrained("published").eval()
model.save_pretrained("saved")
assert torch.equal(model(torch.arange(40)[None]).logits, torch.load("logits.pt"))
tied, written = "tie_word_embeddings", json.load(open("saved/config.json"))
with safe_open("saved/model.safetensors", "pt") as file:
    heads = [name for name in file.keys() if "lm_head" in name]
print(f"transformers 5 writes {tied}: {written[tied]}; in text_config: "
      f"{written['text_config'].get(tied)}; weights of lm_head: {heads}")
written["text_config"]["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2]}
json.dump(written, open("saved/config.json", "w"))
PY
v5.24.0/bin/python save.py 2>/dev/null | tee written.txt
grep -q "tie_word_embeddings: True; in text_config: None; weights of lm_head: \[\]" written.txt

cp -r saved inside
python3 - <<'PY'
import json
config = json.load(open("inside/config.json"))
config["text_config"]["tie_word_embeddings"] = True
json.dump(config, open("inside/config.json", "w"))
PY

cat > load.py <<'PY'
import sys
import torch
from transformers import Qwen2VLForConditionalGeneration
model, info = Qwen2VLForConditionalGeneration.from_pretrained(sys.argv[1], output_loading_info=True)
apart = (model.eval()(torch.arange(40)[None]).logits - torch.load("logits.pt")).abs().max().item()
same = "the same logits" if apart < 1e-5 else "OTHER logits"
print(f"{same}; missing {info['missing_keys']}; lm_head.weight[0, 0] {model.lm_head.weight[0, 0]:.6f}")
PY
echo "4.57.6, as published:               $(v4.57.6/bin/python load.py published 2>/dev/null | tee published.txt)"
echo "4.57.6, as transformers 5 saved it: $(v4.57.6/bin/python load.py saved 2>said.txt | tee once.txt)"
echo "4.57.6, the same again:             $(v4.57.6/bin/python load.py saved 2>/dev/null | tee twice.txt)"
echo "4.57.6, tied in text_config too:    $(v4.57.6/bin/python load.py inside 2>/dev/null | tee inside.txt)"
grep -q "the same logits; missing \[\]" published.txt
grep -q "OTHER logits; missing \['lm_head.weight'\]" once.txt
grep -q "OTHER logits; missing \['lm_head.weight'\]" twice.txt
if cmp -s once.txt twice.txt; then
    echo "both loads have the same lm_head"
    exit 1
fi
grep "newly initialized: \['lm_head.weight'\]" said.txt
cmp published.txt inside.txt
echo "as seen"
