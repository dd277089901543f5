"""First-generation Qwen: its tokenizer, from the file of ranks that those checkpoints come with."""

import base64
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from kilotune.errors import KilotuneError

# How Qwen cuts text before merging (published with its tokenizer): digits one by one.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def qwen_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer with the ids of `file` (qwen.tiktoken); special tokens follow its own.

    Ends and pads with <|endoftext|> and has no chat template, as the base model. Raises
    KilotuneError for a file that is none of ranks.
    """
    ranks = _read_ranks(file)
    alphabet = _byte_alphabet()
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


def _byte_alphabet() -> dict[int, str]:
    """The printable character by which byte-level vocabularies write each byte (GPT-2's table)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in kept}
    moved = [byte for byte in range(256) if byte not in table]
    return table | {byte: chr(256 + place) for place, byte in enumerate(moved)}
