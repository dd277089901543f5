"""Another program's use of exported folders: plain transformers and peft, one prompt at a time.

`python plain.py FOLDER BASE …` reads a list of conversations as JSON on standard input and writes,
for each folder, their answers and the logits of the last one's prompt. BASE is `-` for a merged
model.
"""

import json
import sys
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def said(folder: str, base: str, conversations: list[Any]) -> dict[str, Any]:
    """What the model in a folder answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder if base == "-" else base, dtype="float32")
    if base != "-":
        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    settings = GenerationConfig.from_pretrained(folder)
    answers = []
    for messages in conversations:
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**inputs, generation_config=settings)
        start = inputs["input_ids"].shape[1]
        answers.append(tokenizer.decode(output[0, start:], skip_special_tokens=True).strip())
    return {"answers": answers, "logits": model(**inputs).logits[0, -1].tolist()}


asked = json.load(sys.stdin)
folders = sys.argv[1:]
torch.set_num_threads(1)
with torch.inference_mode():
    found = [said(*pair, asked) for pair in zip(folders[::2], folders[1::2], strict=True)]
assert "kilotune" not in sys.modules
json.dump(found, sys.stdout)
