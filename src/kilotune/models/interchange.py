"""A saved model's settings as older transformers and other programs look for them.

transformers 5 writes some settings in places of its own, where transformers 4, mlx-lm, Ollama's
import and llama.cpp's converter find nothing and take their defaults without a word. Each stands
here in the older place as well; transformers 5 reads both as one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kilotune.data.files.writers import write_atomically
from kilotune.models.integrity import read_json

CONFIG, TOKENIZER, PROCESSOR = "config.json", "tokenizer_config.json", "processor_config.json"
# Where an older processor looks for what transformers 5 nests in processor_config.json.
PROCESSOR_PARTS = {
    "image_processor": "preprocessor_config.json",
    "video_processor": "video_preprocessor_config.json",
}
# Kinds of attention whose rotary base had a key of its own where two are used in turn.
FULL, SLIDING = "full_attention", "sliding_attention"
# Of GPT-NeoX's kind, which had its own words.
NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
# Keys of today and of before, whose readers know no other.
RENAMED = {"dtype": "torch_dtype", "num_local_experts": "num_experts"}
# Of a model that sees it was a key of its language model.
TIED = "tie_word_embeddings"
# As tokenizer.json has it; version 4 knows no other name of what 5 calls a tokenizer of no kind in
# particular, and lets those of some kinds begin texts otherwise than their tokenizer.json says.
AS_IT_STANDS = "PreTrainedTokenizerFast"
GENERIC = {"TokenizersBackend", AS_IT_STANDS}
REBUILT = {
    f"{kind}Tokenizer{fast}"
    for kind in ("Llama", "CodeLlama", "Gemma", "Cohere", "GPTNeoX")
    for fast in ("", "Fast")
}
# Version 4 would give a third, which models refuse.
INPUTS = ["input_ids", "attention_mask"]


def add_older_settings(folder: Path) -> None:
    """Write into the model or adapter in `folder` what other programs read of it.

    Files that are not there are left out, and what stands in an older place stays as it is.
    Raises KilotuneError for a file that is damaged.
    """
    _changed(folder / CONFIG, older_config)
    if (folder / "tokenizer.json").is_file():
        _changed(folder / TOKENIZER, older_tokenizer)
    if (folder / PROCESSOR).is_file():
        settings = read_json(folder / PROCESSOR)
        for part, name in PROCESSOR_PARTS.items():
            if isinstance(settings.get(part), dict) and not (folder / name).exists():
                kind = {"processor_class": settings.get("processor_class")}
                text = json.dumps({**settings[part], **kind}, indent=2)
                write_atomically(folder / name, text + "\n")


def older_config(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` of a config.json, and of the models inside it, with the keys of before."""
    tied = {name: settings[name] for name in (TIED,) if name in settings}
    inner = {
        name: older_config({**(tied if name == "text_config" else {}), **value})
        for name, value in settings.items()
        if name.endswith("_config") and isinstance(value, dict)
    }
    found = {**settings, **inner}
    rope = settings.get("rope_parameters")
    older = _older_rope(rope) if isinstance(rope, dict) else {}
    if str(settings.get("model_type", "")).startswith("gpt_neox"):
        older = {NEOX.get(name, name): value for name, value in older.items()}
    older |= {new: settings[old] for old, new in RENAMED.items() if old in settings}
    return {**older, **found}


def older_tokenizer(settings: dict[str, Any]) -> dict[str, Any]:
    """`settings` of a tokenizer_config.json by which transformers 4 and 5 read the same tokens."""
    found = dict(settings)
    if settings.get("tokenizer_class") in GENERIC | REBUILT:
        found = {"model_input_names": INPUTS, **found, "tokenizer_class": AS_IT_STANDS}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):  # 4 takes names with tokens there, and lists under another key
        del found["extra_special_tokens"]
        found.setdefault("additional_special_tokens", extra)
    return found


def _older_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """The keys of before for rotary positions, of one kind or of two kinds in turn."""
    nested = {name: value for name, value in rope.items() if isinstance(value, dict)}
    if not nested:
        return _older_keys(rope)
    older = _older_keys(nested.get(FULL, {}))
    if theta := nested.get(SLIDING, {}).get("rope_theta"):
        older["rope_local_base_freq"] = theta
    return older


def _older_keys(rope: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {
        name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope
    }
    scaling = {name: value for name, value in rope.items() if name not in own}
    kind = scaling.get("rope_type", "default")
    if kind == "axial" or (kind == "default" and len(scaling) < 2):  # no scaling
        return own
    # Of positions in several parts readers look for a `type`, as published.
    return {**own, "rope_scaling": {**scaling, **({"type": kind} if kind == "default" else {})}}


def _changed(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    if not file.is_file():
        return
    settings = read_json(file)
    if (changed := change(settings)) != settings:
        write_atomically(file, json.dumps(changed, ensure_ascii=False, indent=2) + "\n")
