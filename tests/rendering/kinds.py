"""The kinds of chat template that are about, and what each must make of three conversations.

Texts and trained parts are written by hand. Lengths are counted for a tokenizer in which every
byte and every control token is one token: (tokens in all, tokens trained).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kilotune.data.example import Example, Message, Origin

SYSTEM = Message("system", "Be brief.")
ROUNDS = (
    Message("user", "Hi"),
    Message("assistant", "Hello!"),
    Message("user", "2+2?"),
    Message("assistant", "4"),
)


def example(*messages: Message, row: int = 1) -> Example:
    return Example(f"data:{row}", messages, Origin("chat.jsonl", row))


SINGLE = example(*ROUNDS[:2])
WITH_SYSTEM = example(SYSTEM, *ROUNDS[:2])
MULTI = example(*ROUNDS)


@dataclass(frozen=True)
class Expected:
    text: str
    trained: tuple[str, ...]
    length: tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """A template in `templates/`, its control tokens, and what must come of it.

    `multi` trains every answer; where earlier answers cannot be trained, the last one alone
    (`trains_last`).
    """

    name: str
    special: tuple[str, ...]
    single: Expected
    system: Expected
    multi: Expected
    trains_last: bool = False
    adds_bos: bool = False
    named: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        folder = Path(__file__).parent / "templates"
        return (folder / f"{self.name}.jinja").read_text(encoding="utf-8")

    def settings(self) -> dict[str, Any]:
        return {"special": self.special, "adds_bos": self.adds_bos, **self.named}


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>")

KINDS = [
    Kind(
        "qwen2_vl",
        (*CHATML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
        named={"eos_token": "<|im_end|>"},
        single=Expected(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (66, 7),
        ),
        system=Expected(
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (47, 7),
        ),
        multi=Expected(
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
            "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>",
            ("Hello!<|im_end|>", "4<|im_end|>"),
            (92, 9),
        ),
        remarks=("default-system",),
    ),
    Kind(
        "qwen2_5",
        CHATML,
        single=Expected(
            "<|im_start|>system\nYou are Qwen, made to help.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (65, 7),
        ),
        system=Expected(
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (47, 7),
        ),
        multi=Expected(
            "<|im_start|>system\nYou are Qwen, made to help.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
            "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>",
            ("Hello!<|im_end|>", "4<|im_end|>"),
            (91, 9),
        ),
        remarks=("default-system",),
    ),
    Kind(
        "qwen3",
        CHATML,
        single=Expected(
            "<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (47, 7),
        ),
        system=Expected(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (66, 7),
        ),
        multi=Expected(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
            "<|im_start|>user\n2+2?<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n4<|im_end|>",
            ("4<|im_end|>",),
            (73, 2),
        ),
        trains_last=True,
        remarks=("template-arguments",),
    ),
    Kind(
        "llama2",
        ("<unk>", "<s>", "</s>"),
        named={"bos_token": "<s>"},
        adds_bos=True,
        single=Expected("<s>[INST] Hi [/INST] Hello! </s>", (" Hello! </s>",), (27, 9)),
        system=Expected(
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s>",
            (" Hello! </s>",),
            (55, 9),
        ),
        multi=Expected(
            "<s>[INST] Hi [/INST] Hello! </s><s>[INST] 2+2? [/INST] 4 </s>",
            (" Hello! </s>", " 4 </s>"),
            (51, 13),
        ),
    ),
    Kind(
        "llama3",
        (
            "<|end_of_text|>",
            "<|begin_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
        ),
        named={"bos_token": "<|begin_of_text|>"},
        adds_bos=True,
        single=Expected(
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>",
            ("Hello!<|eot_id|>",),
            (32, 7),
        ),
        system=Expected(
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>",
            ("Hello!<|eot_id|>",),
            (52, 7),
        ),
        multi=Expected(
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>",
            ("Hello!<|eot_id|>", "4<|eot_id|>"),
            (60, 9),
        ),
    ),
    Kind(
        "mistral",
        ("<unk>", "<s>", "</s>"),
        named={"bos_token": "<s>"},
        adds_bos=True,
        single=Expected("<s>[INST] Hi [/INST] Hello!</s>", (" Hello!</s>",), (26, 8)),
        system=Expected("<s>[INST] Be brief.\n\nHi [/INST] Hello!</s>", (" Hello!</s>",), (37, 8)),
        multi=Expected(
            "<s>[INST] Hi [/INST] Hello!</s>[INST] 2+2? [/INST] 4</s>",
            (" Hello!</s>", " 4</s>"),
            (48, 11),
        ),
        remarks=("system-moved",),
    ),
    Kind(
        "gemma",
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        named={"bos_token": "<bos>", "eos_token": "<eos>"},
        adds_bos=True,
        single=Expected(
            "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>",
            ("Hello!<end_of_turn>",),
            (25, 7),
        ),
        system=Expected(
            "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello!<end_of_turn>",
            ("Hello!<end_of_turn>",),
            (36, 7),
        ),
        multi=Expected(
            "<bos><start_of_turn>user\nHi<end_of_turn>\n"
            "<start_of_turn>model\nHello!<end_of_turn>\n"
            "<start_of_turn>user\n2+2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>",
            ("Hello!<end_of_turn>", "4<end_of_turn>"),
            (47, 9),
        ),
        remarks=("stop-differs", "system-moved"),
    ),
    Kind(
        "phi3",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        named={"eos_token": "<|endoftext|>"},
        single=Expected(
            "<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>", ("Hello!<|end|>",), (15, 7)
        ),
        system=Expected(
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>",
            ("Hello!<|end|>",),
            (28, 7),
        ),
        multi=Expected(
            "<|user|>\nHi<|end|>\n<|assistant|>\nHello!<|end|>\n"
            "<|user|>\n2+2?<|end|>\n<|assistant|>\n4<|end|>",
            ("Hello!<|end|>", "4<|end|>"),
            (28, 9),
        ),
        remarks=("stop-differs",),
    ),
    Kind(
        "phi4",
        ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        single=Expected(
            "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (27, 7),
        ),
        system=Expected(
            "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
            "<|im_start|>assistant<|im_sep|>Hello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (45, 7),
        ),
        multi=Expected(
            "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Hello!<|im_end|>"
            "<|im_start|>user<|im_sep|>2+2?<|im_end|><|im_start|>assistant<|im_sep|>4<|im_end|>",
            ("Hello!<|im_end|>", "4<|im_end|>"),
            (51, 9),
        ),
    ),
    Kind(
        "deepseek",
        DEEPSEEK,
        named={"bos_token": DEEPSEEK[0]},
        adds_bos=True,
        single=Expected(
            "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>",),
            (12, 7),
        ),
        system=Expected(
            "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi"
            "<｜Assistant｜>Hello!<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>",),
            (21, 7),
        ),
        multi=Expected(
            "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>"
            "<｜User｜>2+2?<｜Assistant｜>4<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>", "4<｜end▁of▁sentence｜>"),
            (20, 9),
        ),
    ),
    Kind(
        "deepseek_r1",
        DEEPSEEK,
        named={"bos_token": DEEPSEEK[0]},
        adds_bos=True,
        single=Expected(
            "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>",),
            (12, 7),
        ),
        system=Expected(
            "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi"
            "<｜Assistant｜>Hello!<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>",),
            (21, 7),
        ),
        multi=Expected(
            "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜>"
            "<｜User｜>2+2?<｜Assistant｜>4<｜end▁of▁sentence｜>",
            ("Hello!<｜end▁of▁sentence｜>", "4<｜end▁of▁sentence｜>"),
            (20, 9),
        ),
        remarks=("opening-differs",),
    ),
    Kind(
        "glm4",
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        named={"eos_token": "<|endoftext|>", "pad_token": "[gMASK]"},
        single=Expected(
            "[gMASK]<sop><|user|>\nHi<|assistant|>\nHello!<|endoftext|>",
            ("\nHello!<|endoftext|>",),
            (15, 8),
        ),
        system=Expected(
            "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello!<|endoftext|>",
            ("\nHello!<|endoftext|>",),
            (26, 8),
        ),
        multi=Expected(
            "[gMASK]<sop><|user|>\nHi<|assistant|>\nHello!<|user|>\n2+2?<|assistant|>\n4"
            "<|endoftext|>",
            ("\nHello!<|user|>", "\n4<|endoftext|>"),
            (24, 11),
        ),
        # The next user's marker ends a turn, which the tokenizer alone does not say.
        remarks=("turn-end-differs",),
    ),
    Kind(
        "generation",
        CHATML,
        single=Expected(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (28, 7),
        ),
        system=Expected(
            "<|im_start|>system\nBe brief.<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>",
            ("Hello!<|im_end|>",),
            (47, 7),
        ),
        multi=Expected(
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n"
            "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>",
            ("Hello!<|im_end|>", "4<|im_end|>"),
            (54, 9),
        ),
    ),
]
