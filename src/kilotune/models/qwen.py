"""First-generation Qwen (`model_type: qwen`) as the Qwen 2 that computes the same.

Its checkpoints come with code of their own, and none of it is run: the configuration and the
tensors are mapped by name, and the tokenizer is built from the file of ranks. The architecture is
Bai et al. 2023, section 2.3; names and halves are as published with the checkpoints.
"""

import base64
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from kilotune.errors import KilotuneError, some
from kilotune.models.checkpoint import Checkpoint, indexed_files, tensor_files
from kilotune.models.integrity import check_held, read_json

CONFIG, RANKS, GENERATION = "config.json", "qwen.tiktoken", "generation_config.json"

# Qwen 2's modules in a layer, and Qwen's: the three projections are rows of one, and its product
# is w1(x) * silu(w2(x)).
LAYER: dict[str, tuple[str, int | None]] = {
    "input_layernorm": ("ln_1", None),
    "self_attn.q_proj": ("attn.c_attn", 0),
    "self_attn.k_proj": ("attn.c_attn", 1),
    "self_attn.v_proj": ("attn.c_attn", 2),
    "self_attn.o_proj": ("attn.c_proj", None),
    "post_attention_layernorm": ("ln_2", None),
    "mlp.up_proj": ("mlp.w1", None),
    "mlp.gate_proj": ("mlp.w2", None),
    "mlp.down_proj": ("mlp.c_proj", None),
}
OUTSIDE = {
    "model.embed_tokens.weight": "transformer.wte.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "lm_head.weight": "lm_head.weight",
}
# Tables that old checkpoints hold and every program computes for itself.
COMPUTED = (".inv_freq", ".masked_bias", ".attn.bias", ".logn_tensor")

NEEDED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "kv_channels", "layer_norm_epsilon", "rotary_emb_base", "seq_length",
)  # fmt: skip

# One file after another, with what unpickles tensors alone.
CONVERT = (
    "import glob, sys, torch; from safetensors.torch import save_file; "
    "[save_file(torch.load(f, map_location='cpu', weights_only=True), f[:-3] + 'safetensors') "
    "for f in glob.glob(sys.argv[1] + '/pytorch_model*.bin')]"
)

# How Qwen cuts text before merging (published with its tokenizer): digits one by one.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def first_generation(place: str | Path) -> Path | None:
    """The config.json of the first-generation Qwen at `place`, that file or its folder, or None.

    Raises KilotuneError for a file that is not JSON.
    """
    path = Path(place)
    file = path / CONFIG if path.is_dir() else path
    if file.suffix != ".json" or not file.is_file():
        return None
    return file if read_json(file).get("model_type") == "qwen" else None


def qwen_config(file: Path) -> Qwen2Config:
    """The configuration of the Qwen 2 that computes what the Qwen of `file` does.

    `intermediate_size` counts both halves of the gated product there, and heads share no keys.
    Raises KilotuneError for quantised checkpoints and variants that were never published.
    """
    numbers = read_json(file)
    _check_kind(numbers, file)
    config = Qwen2Config(
        vocab_size=numbers["vocab_size"],
        hidden_size=numbers["hidden_size"],
        intermediate_size=numbers["intermediate_size"] // 2,
        num_hidden_layers=numbers["num_hidden_layers"],
        num_attention_heads=numbers["num_attention_heads"],
        num_key_value_heads=numbers["num_attention_heads"],
        head_dim=numbers["kv_channels"],
        # Beyond it Qwen scales its rotary base (dynamic NTK) and its queries (log-n); up to there
        # both are the identity.
        max_position_embeddings=numbers["seq_length"],
        rms_norm_eps=numbers["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": numbers["rotary_emb_base"]},
        tie_word_embeddings=numbers.get("tie_word_embeddings", False),
    )
    config.name_or_path = str(file.parent)
    return config


class QwenCheckpoint(Checkpoint):
    """The tensors of a first-generation Qwen under Qwen 2's names, each read when asked for."""

    def _find(self) -> dict[str, Path]:
        """The file of each tensor. Raises KilotuneError for tensors too few or too many."""
        config = qwen_config(self.folder / CONFIG)
        files = indexed_files(self.folder) or tensor_files(
            sorted(self.folder.glob("*.safetensors"))
        )
        if not files:
            raise _no_safetensors(self.folder)
        self._origins = qwen_names(config)
        origins = {origin for origin, _ in self._origins.values()}
        missing = sorted(origins - files.keys())
        unknown = sorted(n for n in files.keys() - origins if not n.endswith(COMPUTED))
        if missing or unknown:
            said = [f"lacks {some(missing)}"] if missing else []
            said += [f"also holds {some(unknown)}"] if unknown else []
            raise KilotuneError(
                f"the checkpoint {' and '.join(said)}: not a first-generation Qwen of texts alone",
                where=str(self.folder),
                fix="Fetch all its files again; quantised models and Qwen-VL are not supported",
            )
        return {name: files[origin] for name, (origin, _) in self._origins.items()}

    def _read(self, file: Any, name: str) -> torch.Tensor:
        origin, third = self._origins[name]
        rows = file.get_slice(origin)
        size = rows.get_shape()[0]
        if third is None:
            return rows[:]
        return rows[third * size // 3 : (third + 1) * size // 3]

    def _shape(self, file: Any, name: str) -> tuple[int, ...]:
        origin, third = self._origins[name]
        rows, *rest = file.get_slice(origin).get_shape()
        return (rows if third is None else rows // 3, *rest)


def qwen_names(config: Qwen2Config) -> dict[str, tuple[str, int | None]]:
    """Qwen 2's tensors, and for each Qwen's and which third of its rows, None for all of it."""
    names: dict[str, tuple[str, int | None]] = {n: (o, None) for n, o in OUTSIDE.items()}
    if config.tie_word_embeddings:
        del names["lm_head.weight"]
    for layer in range(config.num_hidden_layers):
        for module, (origin, third) in LAYER.items():
            for kind in ("weight", "bias") if origin == "attn.c_attn" else ("weight",):
                name = f"model.layers.{layer}.{module}.{kind}"
                names[name] = f"transformer.h.{layer}.{origin}.{kind}", third
    return names


def load_qwen(
    folder: str | Path, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Qwen2ForCausalLM:
    """The first-generation Qwen in `folder`, its weights in `dtype` (None: as stored).

    Each tensor is read once and goes to its place; where nothing is converted it stays pages of
    the file. Raises KilotuneError for what is no such checkpoint, and for .bin files.
    """
    folder = Path(folder)
    checkpoint = QwenCheckpoint(str(folder))
    config = qwen_config(folder / CONFIG)
    with init_empty_weights(include_buffers=False):
        model = Qwen2ForCausalLM(config)
    check_held(model, checkpoint.shapes(), str(folder))
    state = {name: checkpoint.load([name], dtype, device)[name] for name in checkpoint}
    model.load_state_dict(state, strict=not config.tie_word_embeddings, assign=True)
    model.tie_weights()
    model.config.dtype = model.dtype
    model.generation_config = qwen_generation(folder)
    return model.to(device).eval()


def check_qwen(folder: Path) -> None:
    """Raise KilotuneError where the weights in `folder` are not all there, by their headers."""
    with torch.device("meta"):
        model = Qwen2ForCausalLM(qwen_config(folder / CONFIG))
    check_held(model, QwenCheckpoint(str(folder)).shapes(), str(folder))


def qwen_generation(folder: Path) -> GenerationConfig:
    """The decoding in the folder's generation_config.json, stopping where its own code stops.

    That is at `eos_token_id` and `stop_words_ids`, and for the chat models (`chat_format: chatml`)
    at both markers of ChatML, which follow <|endoftext|>.
    """
    file = folder / GENERATION
    values = read_json(file) if file.is_file() else {}
    end = values.pop("eos_token_id", None)
    stops = list(end) if isinstance(end, list) else [] if end is None else [end]
    stops += [words[0] for words in values.pop("stop_words_ids", []) if len(words) == 1]
    if values.pop("chat_format", None) == "chatml" and stops:
        stops += [stops[0] + SPECIAL.index(marker) for marker in ("<|im_end|>", "<|im_start|>")]
    values.pop("max_window_size", None)  # how much of a conversation its own code keeps
    return GenerationConfig(**values, eos_token_id=list(dict.fromkeys(stops)) or None)


def qwen_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer with the ids of `file` (qwen.tiktoken); special tokens follow its own.

    Ends and pads with <|endoftext|> and has no chat template, as the base model. Raises
    KilotuneError for a file that is none of ranks.
    """
    ranks = _read_ranks(file)
    alphabet = bytes_to_unicode()  # GPT-2's, which byte-level vocabularies are written by
    spelled = {token: "".join(alphabet[byte] for byte in token) for token in ranks}
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    merges = [
        (spelled[left], spelled[right])
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
        for left, right in [_last_merge(token, rank, ranks)]
    ]
    core = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        clean_up_tokenization_spaces=False,
    )


def _check_kind(numbers: Mapping[str, Any], file: Path) -> None:
    missing = [name for name in NEEDED if name not in numbers]
    if missing:
        raise KilotuneError(
            f"a first-generation Qwen's configuration without {some(missing)}",
            where=str(file),
            fix="Fetch it again",
        )
    if numbers.get("quantization_config"):
        raise KilotuneError(
            "a quantised checkpoint (GPTQ, Int4, Int8) of a first-generation Qwen",
            where=str(file),
            fix="Give the one with plain weights, such as Qwen-7B-Chat for Qwen-7B-Chat-Int4",
        )
    heads = numbers["num_attention_heads"] * numbers["kv_channels"]
    usual = {
        "rotary_pct": numbers.get("rotary_pct", 1.0) == 1.0,
        "no_bias": numbers.get("no_bias", True) is True,
        "scale_attn_weights": numbers.get("scale_attn_weights", True) is True,
        "kv_channels": heads == numbers["hidden_size"],
        "visual": "visual" not in numbers,
        "audio": "audio" not in numbers,
    }
    unusual = [name for name, holds in usual.items() if not holds]
    if unusual:
        raise KilotuneError(
            f"a Qwen that differs from the published language models in {some(unusual)}",
            where=str(file),
            fix="Give Qwen-1.8B, 7B, 14B, 72B, a chat model of these, or one tuned from them",
        )


def _no_safetensors(folder: Path) -> KilotuneError:
    if not list(folder.glob("pytorch_model*.bin")):
        return KilotuneError("no safetensors files", where=str(folder), fix="Fetch them again")
    return KilotuneError(
        "weights in .bin files, which are pickles, are not read",
        where=str(folder),
        fix=f"Convert them: python -c {shlex.quote(CONVERT)} {shlex.quote(str(folder))}",
    )


def _read_ranks(file: Path) -> dict[bytes, int]:
    ranks = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError as error:
            raise KilotuneError(
                "not a token in base64 and its rank",
                where=f"{file}:{number}",
                fix="Give the qwen.tiktoken that came with the checkpoint",
            ) from error
    return ranks


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that `token` is merged from: what merges of lower rank leave of its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    left, right = parts
    return left, right
