"""A whole model in a folder, of random weights: what unit tests tune in seconds."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokenizer(
    template: str | None = CHATML,
    *,
    special: Sequence[str] = SPECIAL,
    adds_bos: bool = False,
    **settings: str,
) -> PreTrainedTokenizerFast:
    """Every byte is a token, and nothing merges: masks can be counted by hand.

    `adds_bos` puts the `bos_token` of `settings` before texts that are encoded by themselves.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    named = {"eos_token": special[-1], "pad_token": special[0], **settings}
    if adds_bos:
        bos = named["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.chat_template = template
    return tokenizer


def word_tokenizer(template: str | None, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """As SentencePiece makes them: `▁` for spaces, one put before every text, unknown as bytes.

    Each of `words` (such as `▁Hello`) is one token, merged letter by letter.
    """
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>"])}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    starts = [word[:end] for word in words for end in range(2, len(word) + 1)]
    vocabulary |= {token: 259 + i for i, token in enumerate(dict.fromkeys(letters + starts))}
    merges = dict.fromkeys((start[:-1], start[-1]) for start in starts)
    core = Tokenizer(
        models.BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>", byte_fallback=True)
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = template
    return tokenizer


def write_tiny_model(folder: Path, *, layers: int = 3, seed: int = 0) -> Path:
    """A random Llama of about 40,000 parameters with its tokenizer, as `from_pretrained` wants."""
    import torch

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def labelled_csv(path: Path, count: int = 40) -> Path:
    """A learnable file: the label can be read off the text."""
    lines = ["text,label"]
    for index in range(count):
        label = ("good", "bad")[index % 2]
        lines.append(f"film {index} was {('great', 'awful')[index % 2]},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
