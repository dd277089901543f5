"""A whole model in a folder, of random weights: what unit tests tune in seconds."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokenizer(template: str | None = CHATML, **settings: str) -> PreTrainedTokenizerFast:
    """Every byte is a token, and nothing merges: masks can be counted by hand."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: index for index, char in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **settings}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
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
