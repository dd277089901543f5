"""First-generation Qwen's tokenizer against tiktoken, for which its file was made."""

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tiktoken.load import load_tiktoken_bpe

from kilotune.errors import KilotuneError
from kilotune.models.qwen import PATTERN, SPECIAL, qwen_tokenizer
from tests.assets import qwen_ranks

WRITTEN = [
    "", " ", "\n\n \t", "Hello, world!", "It's Bob's; they'LL won't", "3.14159 and 1,000,000",
    "你好，世界。今天天气怎么样？", "北京2024年12月", "こんにちは世界", "한국어 문장입니다",
    "Привет, мир", "مرحبا بالعالم", "नमस्ते दुनिया",
    "e\u0301te\u0301 nai\u0308f", "ﬁligree ① Ａ", "🙂👩‍👩‍👧🇨🇳",
    "def f(x):\r\n\treturn x ** 2  # square", "<div class='a'>&nbsp;</div>",
    "https://a.example/b?c=d",
    "   leading and trailing   ", "a\u200bb\u00a0c", "<|im_start|>user\nhi<|im_end|>\n",
    "<|extra_7|>",
]  # fmt: skip


def strings() -> list[str]:
    """The above, and 300 mixtures of many scripts and kinds of space, the same every time."""
    rng = random.Random(0)
    ranges = [
        (32, 127),
        (160, 591),
        (880, 1279),
        (19968, 40869),
        (44032, 55203),
        (0x1F300, 0x1F64F),
    ]
    spaces = [" ", "  ", "\n", "\r\n", "\t", "", "", "'s", "12"]
    mixed = []
    for _ in range(300):
        parts = []
        for _ in range(rng.randint(1, 12)):
            low, high = rng.choice(ranges)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8))))
            parts.append(rng.choice(spaces))
        mixed.append("".join(parts))
    return WRITTEN + mixed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_ranks(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def tokenizer(ranks: Path) -> Any:
    return qwen_tokenizer(ranks)


def test_ids_are_those_of_tiktoken_on_varied_strings(ranks: Path, tokenizer: Any) -> None:
    special = {token: 151643 + place for place, token in enumerate(SPECIAL)}
    reference = tiktoken.Encoding(
        "qwen",
        pat_str=PATTERN,
        mergeable_ranks=load_tiktoken_bpe(str(ranks)),
        special_tokens=special,
    )
    texts = strings()
    assert len(set(texts)) > 300
    for text in texts:
        composed = unicodedata.normalize("NFC", text)  # as Qwen's own tokenizer begins
        ids = reference.encode(composed, allowed_special="all")
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == composed


def test_special_tokens_follow_the_ranks(tokenizer: Any) -> None:
    assert len(tokenizer) == 151643 + 208
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra_0|>", "<|extra_204|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [151643, 151644, 151645, 151646, 151850]
    assert tokenizer.chat_template is None
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151643, 151643)


def test_it_can_be_saved_and_loaded_as_any_other(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in WRITTEN:
        assert again.encode(text) == tokenizer.encode(text)


def test_a_file_of_something_else_is_an_error_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "qwen.tiktoken"
    file.write_text("IQ== 0\nnothing of the kind\n")
    with pytest.raises(KilotuneError, match="base64") as caught:
        qwen_tokenizer(file)
    assert caught.value.where == f"{file}:2"
