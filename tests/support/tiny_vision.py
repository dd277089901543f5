"""Whole vision-language models in folders, of random weights, and small images to ask about."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from tokenizers import Tokenizer
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

from examples.vision.digits import write_images
from kilotune.data.example import Image
from kilotune.models.qwen import qwen_tokenizer
from tests.support.tiny import byte_tokenizer

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<|im_end|>",
)  # fmt: skip
# As published, from id 151643 on.
QWEN2_VL_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TEMPLATE = Path(__file__).parents[1] / "rendering" / "templates" / "qwen2_vl.jinja"
# How LLaVA's and Idefics3's own templates are built: images before words; in their place.
LLAVA = (
    "{% for m in messages %}{{ m['role'] | upper }}: {% for part in m['content'] "
    "| selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}{% for part in m['content'] "
    "| selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{% if m['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
IDEFICS = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}{% if m['content'][0]['type'] "
    "== 'image' %}:{% else %}: {% endif %}{% for part in m['content'] %}{% if part['type'] == "
    "'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)
IDEFICS_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<image>", "<fake_token_around_image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2, 3, 4) for column in (1, 2, 3, 4)),
    "<end_of_utterance>",
)  # fmt: skip


def _text(tokenizer: Any, layers: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        # Large weights: attention is far from even, and a wrong mask shows.
        "initializer_range": 0.2,
        **more,
    }


def _qwen(tokenizer: Any, layers: int) -> dict[str, Any]:
    token = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    return {
        "text_config": _text(tokenizer, layers, rope_parameters=rope),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": True,
    }


def _qwen2_vl(layers: int, tokenizer: Any = None) -> tuple[Any, Any]:
    tokenizer = tokenizer or _qwen_tokenizer()
    sizes = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
    config = Qwen2VLConfig(vision_config=sizes, **_qwen(tokenizer, layers))
    template = tokenizer.chat_template
    images, videos = Qwen2VLImageProcessor(), Qwen2VLVideoProcessor()
    return config, Qwen2VLProcessor(images, tokenizer, videos, chat_template=template)


def _qwen2_5_vl(layers: int) -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    sizes = {
        "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4,
        "intermediate_size": 64, "fullatt_block_indexes": [1], "window_size": 56,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(vision_config=sizes, **_qwen(tokenizer, layers))
    template = tokenizer.chat_template
    images, videos = Qwen2VLImageProcessor(), Qwen2VLVideoProcessor()
    return config, Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=template)


def _qwen3_vl(layers: int) -> tuple[Any, Any]:
    tokenizer = _qwen_tokenizer()
    sizes = {
        "depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4,
        "intermediate_size": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    settings = _qwen(tokenizer, layers)
    settings["text_config"]["head_dim"] = 8
    config = Qwen3VLConfig(vision_config=sizes, **settings)
    images, videos = Qwen2VLImageProcessor(patch_size=16), Qwen3VLVideoProcessor()
    template = tokenizer.chat_template
    return config, Qwen3VLProcessor(images, tokenizer, videos, chat_template=template)


def _llava(layers: int) -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(None, special=("<pad>", "<image>", "</s>"))
    tower = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": layers, "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = LlavaConfig(
        vision_config=tower,
        text_config={"model_type": "llama", **_text(tokenizer, layers)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA,
    )
    return config, processor


def _idefics3(layers: int) -> tuple[Any, Any]:
    tokenizer = byte_tokenizer(None, special=IDEFICS_SPECIAL)
    tower = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers,
        "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Idefics3Config(
        vision_config=tower,
        text_config={"model_type": "llama", **_text(tokenizer, layers)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    images = Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=1, chat_template=IDEFICS)
    return config, processor


def _smolvlm(layers: int) -> tuple[Any, Any]:
    # Its processor asks for a package that counts the frames of videos in words; no image needs it.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    base, idefics = _idefics3(layers)
    settings = base.to_dict()
    settings["vision_config"].pop("model_type")
    config = SmolVLMConfig(
        vision_config=settings["vision_config"],
        text_config=settings["text_config"],
        image_token_id=base.image_token_id,
        scale_factor=base.scale_factor,
        pad_token_id=base.pad_token_id,
    )
    images = SmolVLMImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    processor = SmolVLMProcessor(
        images,
        idefics.tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=1,
        chat_template=IDEFICS,
    )
    return config, processor


KINDS: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
}


def real_qwen_tokenizer(ranks: Path) -> Any:
    """Qwen2-VL's own: the vocabulary of `ranks` (qwen.tiktoken), and its special tokens at theirs.

    First-generation Qwen has the same vocabulary, and other names from the fourth special token on.
    """
    first = json.loads(qwen_tokenizer(ranks).backend_tokenizer.to_str())
    added = first["added_tokens"][: len(QWEN2_VL_SPECIAL)]
    for token, content in zip(added, QWEN2_VL_SPECIAL, strict=True):
        token["content"] = content
    core = Tokenizer.from_str(json.dumps({**first, "added_tokens": added}))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN2_VL_SPECIAL[1:]),
        chat_template=TEMPLATE.read_text(encoding="utf-8"),
    )


def _qwen_tokenizer() -> Any:
    """Bytes, with Qwen2-VL's own special tokens and its chat template."""
    return byte_tokenizer(TEMPLATE.read_text(encoding="utf-8"), special=SPECIAL)


def write_kind(kind: str, folder: Path, *, layers: int = 2, seed: int = 0) -> Path:
    """A random model with processor and tokenizer, as `from_pretrained` wants them.

    Its vision tower has two blocks, LLaVA's and Idefics3's as many as the decoder.
    """
    return _write(folder, *KINDS[kind](layers), seed)


def write_real_vocabulary(folder: Path, ranks: Path, *, blocks: int = 2) -> Path:
    """A random Qwen2-VL with the real vocabulary and its image tokens at the published ids.

    Its vision tower has so many `blocks`.
    """
    config, processor = _qwen2_vl(2, real_qwen_tokenizer(ranks))
    config.vision_config.depth = blocks
    return _write(folder, config, processor, 0)


def _write(folder: Path, config: Any, processor: Any, seed: int) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_learner(folder: Path) -> Path:
    """A random Qwen2-VL of 300,000 parameters that learns to read digits in a minute."""
    config, processor = _qwen2_vl(2)
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.initializer_range = 64, 128, 0.05
    text.rope_parameters["mrope_section"] = [2, 3, 3]
    tower.hidden_size = tower.embed_dim = 64
    tower.initializer_range = 0.05
    return _write(folder, config, processor, 0)


def write_wider(folder: Path) -> Path:
    """A random Qwen2-VL of 33 million parameters: what it keeps for a backward pass counts."""
    config, processor = _qwen2_vl(12)
    text, tower = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.initializer_range = 384, 1536, 0.02
    text.num_attention_heads, text.num_key_value_heads = 6, 2
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    tower.hidden_size, tower.embed_dim, tower.depth, tower.num_heads = 384, 192, 4, 6
    return _write(folder, config, processor, 0)


def write_digits(
    folder: Path, numbers: Sequence[int], question: str, answer: Callable[[int], str]
) -> Path:
    """A CSV of scikit-learn's handwritten digits, asked about; every fifth is half transparent."""
    shown = write_images(folder, numbers)
    rows = [(image, question, answer(digit)) for image, digit in shown.items()]
    file = folder / f"{question.split()[0]}{numbers[0]}.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("image", "text", "label"), *rows])
    return file


def even_or_odd(digit: int) -> str:
    return "odd" if digit % 2 else "even"


def picture(path: Path, value: int, size: tuple[int, int] = (56, 56)) -> Path:
    """A picture that fades from black to a grey value, saved at `path`."""
    width, height = size
    row = np.linspace(0, value, width).astype(np.uint8)
    Pillow.fromarray(np.tile(row, (height, 1))).convert("RGB").save(path)
    return path


def seen_images(folder: Path) -> tuple[Image, ...]:
    """A small one, a wide one, and one of the small one's size that looks otherwise."""
    picture(folder / "small.png", 20)
    picture(folder / "wide.png", 220, (112, 56))
    picture(folder / "other.png", 130)
    return tuple(Image(f"{name}.png", str(folder)) for name in ("small", "wide", "other"))
