"""Merged models in transformers 4, which most programs that serve models are built on.

Not collected by itself: `make test-transformers-4` makes an environment with that version and runs
this with KILOTUNE_TRANSFORMERS_4, its interpreter.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlamaTokenizer,
)

from kilotune.models.interchange import add_older_settings
from kilotune.models.merge import write_merged
from tests.exports.transformers_4 import SEEING, TEXTS
from tests.support.tiny import byte_tokenizer, word_tokenizer

PYTHON = os.environ["KILOTUNE_TRANSFORMERS_4"]
SCRIPT = Path(__file__).with_name("transformers_4.py")


def under_4(*arguments: str | Path) -> str:
    """What the script writes there."""
    quiet = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
    quiet.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHON, SCRIPT, *arguments], capture_output=True, text=True, check=False, env=quiet
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models as transformers 4 saved them, which is how most are published."""
    folder = tmp_path_factory.mktemp("published")
    under_4("make", folder)
    return folder


@pytest.fixture(scope="module")
def merged(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The same with adapters merged into them; what both versions predict."""
    folder, here = tmp_path_factory.mktemp("merged"), {}
    for name in (*TEXTS, *SEEING):
        kind = AutoModelForImageTextToText if name in SEEING else AutoModelForCausalLM
        base = kind.from_pretrained(published / name, dtype=torch.float32)
        wanted = {"q_proj", "query_key_value", "qkv_proj", "q_b_proj"}
        targets = wanted & {module.rpartition(".")[2] for module, _ in base.named_modules()}
        torch.manual_seed(0)
        config = LoraConfig(target_modules=sorted(targets), init_lora_weights=False)
        model = get_peft_model(base, config).eval()
        (folder / name).mkdir()
        write_merged(model, folder / name)
        add_older_settings(folder / name)
        shutil.copy(published / name / "inputs.safetensors", folder / name)
        again = kind.from_pretrained(folder / name).eval()
        inputs = load_file(folder / name / "inputs.safetensors")
        if name in SEEING and name != "llava":
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == 290).long()
        with torch.inference_mode():
            tuned, plain = (m(**inputs).logits[0, -1].tolist() for m in (model, again))
            with model.disable_adapter():
                before = model(**inputs).logits[0, -1].tolist()
        here[name] = {"tuned": tuned, "merged": plain, "base": before}
    folders = [folder / name for name in here]
    there = json.loads(under_4("ask", *folders, *(published / name for name in here)))
    return folder, here, there


@pytest.mark.parametrize("name", [*TEXTS, *SEEING])
def test_merged_models_predict_there_what_they_do_here_under_published_names(
    merged: tuple[Path, Any, Any], published: Path, name: str
) -> None:
    folder, here, there = merged
    found, base = there[str(folder / name)], there[str(published / name)]
    assert found["wrong"] == base["wrong"]
    assert found["names"] == base["names"]
    assert np.abs(np.subtract(here[name]["merged"], here[name]["tuned"])).max() < 1e-4
    assert np.abs(np.subtract(here[name]["base"], base["logits"])).max() < 1e-4
    assert np.abs(np.subtract(found["logits"], here[name]["tuned"])).max() < 1e-4
    assert np.abs(np.subtract(here[name]["tuned"], here[name]["base"])).max() > 1e-2


def test_tokenizers_write_the_same_ids_there(tmp_path: Path) -> None:
    words = word_tokenizer(None, ["▁Hello", "▁world"])
    bare = json.loads(words.backend_tokenizer.to_str())["model"]
    marked = byte_tokenizer()
    marked.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    kinds = {
        "bytes": byte_tokenizer(), "words": words, "marked": marked,
        "begun": byte_tokenizer(adds_bos=True, bos_token="<|im_start|>"),
        "llama": LlamaTokenizer(vocab=bare["vocab"], merges=list(map(tuple, bare["merges"]))),
    }  # fmt: skip
    text, here = "Hello world <|im_start|> and <|im_end|>\n", {}
    for name, tokenizer in kinds.items():
        tokenizer.save_pretrained(tmp_path / name)
        add_older_settings(tmp_path / name)
        made = tokenizer(text)
        assert (
            AutoTokenizer.from_pretrained(tmp_path / name)(text)["input_ids"] == made["input_ids"]
        )
        here[name] = {key: list(value) for key, value in made.items()}
    assert {*here["bytes"]} == {"input_ids", "attention_mask"}
    there = json.loads(under_4("tokenize", text, *(tmp_path / name for name in kinds)))
    assert {Path(folder).name: found for folder, found in there.items()} == here
