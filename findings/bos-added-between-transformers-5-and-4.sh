#!/usr/bin/env bash
# A Llama tokenizer that is told not to begin texts with BOS, saved by transformers 5, begins them
# with BOS in transformers 4.57, though its tokenizer.json says otherwise.
#
# Seen 2026-12-01 with transformers 5.24.0 and 4.57.6: a tokenizer_config.json with
# `"add_bos_token": false` gives no BOS in either version. Loaded and saved again by transformers 5
# the key is gone, as the post-processor in tokenizer.json says the same. 4.57.6 does not heed that:
# its LlamaTokenizerFast makes a post-processor of its own from `add_bos_token`, whose default is
# true. Every text is one token longer, and nothing is said of it. One would guess that
# tokenizer.json alone decides the ids, as it does for `PreTrainedTokenizerFast`: with that as
# tokenizer_class, or with the key put back, there is no BOS.
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

cat > publish.py <<'PY'
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaTokenizerFast
words = ["<unk>", "<s>", "</s>", "▁", "H", "i", "▁H", "▁Hi"]
core = Tokenizer(models.BPE(
    {word: i for i, word in enumerate(words)}, [("▁", "H"), ("▁H", "i")], unk_token="<unk>"))
core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
core.decoder = decoders.Sequence([
    decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
LlamaTokenizerFast(tokenizer_object=core, add_bos_token=False).save_pretrained("published")
PY
v4.57.6/bin/python publish.py 2>/dev/null

cat > ids.py <<'PY'
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
config = json.load(open(f"{sys.argv[1]}/tokenizer_config.json"))
print(tokenizer.convert_ids_to_tokens(tokenizer("Hi")["input_ids"]),
      "add_bos_token", config.get("add_bos_token", "not there"), type(tokenizer).__name__)
if len(sys.argv) > 2:
    tokenizer.save_pretrained(sys.argv[2])
PY
echo "4.57.6, as published:               $(v4.57.6/bin/python ids.py published 2>/dev/null | tee before4.txt)"
echo "5.24.0, as published:               $(v5.24.0/bin/python ids.py published saved 2>/dev/null | tee before5.txt)"

python3 - <<'PY'
import json, shutil
steps = json.load(open("saved/tokenizer.json"))["post_processor"]
print("tokenizer.json of 5.24.0 begins a text with:", steps["single"][0] if steps else "the text")
assert "<s>" not in json.dumps(steps)
config = json.load(open("saved/tokenizer_config.json"))
for name, more in (("key", {"add_bos_token": False}),
                   ("kind", {"tokenizer_class": "PreTrainedTokenizerFast"})):
    shutil.copytree("saved", name)
    json.dump({**config, **more}, open(f"{name}/tokenizer_config.json", "w"))
PY

echo "5.24.0, as it saved it:             $(v5.24.0/bin/python ids.py saved 2>/dev/null | tee after5.txt)"
echo "4.57.6, as transformers 5 saved it: $(v4.57.6/bin/python ids.py saved 2>said.txt | tee after4.txt)"
echo "4.57.6, with add_bos_token false:   $(v4.57.6/bin/python ids.py key 2>/dev/null | tee key.txt)"
echo "4.57.6, as one of no special kind:  $(v4.57.6/bin/python ids.py kind 2>/dev/null | tee kind.txt)"
for seen in before4 before5 key; do
    grep -q "^\['▁Hi'\] add_bos_token False" "$seen.txt"
done
for seen in after5 kind; do
    grep -q "^\['▁Hi'\] add_bos_token not there" "$seen.txt"
done
grep -q "^\['<s>', '▁Hi'\] add_bos_token not there LlamaTokenizerFast" after4.txt
if grep -i "bos" said.txt; then
    echo "something is said now"
    exit 1
fi
echo "as seen"
