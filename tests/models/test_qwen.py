"""First-generation Qwen against its architecture in NumPy, its tokenizer against tiktoken."""

import json
import os
import random
import re
import shlex
import subprocess
import sys
import unicodedata
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import torch
from safetensors.numpy import load_file
from tiktoken.load import load_tiktoken_bpe
from transformers import Qwen2ForCausalLM

from kilotune.errors import KilotuneError
from kilotune.models.qwen import PATTERN, SPECIAL, QwenCheckpoint, load_qwen, qwen_tokenizer
from kilotune.models.source import locate, locate_config, locate_tokenizer, source_at
from kilotune.models.streaming import load_streamed, streamed_below
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import ModelSettings
from tests.support.assets import qwen_ranks, qwen_source
from tests.support.first_qwen import qwen_logits, qwen_settings, qwen_weights, write_tiny_qwen

IDS = [3, 77, 256, 101, 8, 8, 400, 479, 0, 12, 31, 255, 90, 91, 92, 14, 15, 201, 33, 34]

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


def test_pattern_and_special_tokens_are_the_published_ones() -> None:
    source = qwen_source()
    assert f'PAT_STR = r"""{PATTERN}"""' in source
    assert re.findall(r'^[A-Z]+ = "(<\|[a-z_]+\|>)"', source, re.MULTILINE) == list(SPECIAL[:3])
    assert 'f"<|extra_{i}|>" for i in range(205)' in source
    assert "SPECIAL_START_ID = 151643" in source


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_qwen(tmp_path_factory.mktemp("first") / "tiny qwen")


def logits(model: Any, ids: list[int] = IDS) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def reference(ids: list[int] = IDS, **changes: Any) -> np.ndarray:
    config = qwen_settings(**changes)
    return qwen_logits(qwen_weights(config), config, ids)


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [{}, {"rotary_emb_base": 1000000}, {"layer_norm_epsilon": 0.1}],
    ids=["7b", "rotary base", "epsilon"],
)
def test_logits_are_those_of_the_architecture_written_in_numpy(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = load_qwen(write_tiny_qwen(tmp_path, **changes))
    assert type(model) is Qwen2ForCausalLM
    assert model.dtype == model.config.dtype == torch.float32
    wanted = reference(**changes)
    assert np.abs(logits(model) - wanted).max() < 1e-4
    assert np.abs(wanted).max() > 1
    if changes:  # the setting makes a difference that the tolerance sees
        assert np.abs(wanted - reference()).max() > 1e-2


def test_up_to_its_length_positions_are_plain(tmp_path: Path) -> None:
    ids = [(7 * place) % 480 for place in range(64)]
    model = load_qwen(write_tiny_qwen(tmp_path, seq_length=64))
    assert np.abs(logits(model, ids) - reference(ids, seq_length=64)).max() < 1e-4


def test_shards_without_an_index_and_a_folder_without_a_tokenizer_give_the_model(
    tmp_path: Path,
) -> None:
    write_tiny_qwen(tmp_path, index=False)
    for name in ("qwen.tiktoken", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).unlink()
    assert np.array_equal(logits(load_qwen(tmp_path)), logits(load_qwen(str(tmp_path))))
    assert np.abs(logits(load_qwen(tmp_path)) - reference()).max() < 1e-4
    assert source_at(tmp_path).stop_ids() == ()
    with pytest.raises(KilotuneError, match="no tokenizer") as caught:
        source_at(tmp_path).tokenizer()
    assert "qwen.tiktoken" in caught.value.fix


def test_every_tensor_is_read_once_and_let_go_before_the_next(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[str, int]] = []
    alive: list[Any] = []
    read = QwenCheckpoint._read

    def watched(self: QwenCheckpoint, file: Any, name: str) -> torch.Tensor:
        assert [ref for ref in alive if ref() is not None] == []
        tensor = read(self, file, name)
        reads.append((name, tensor.nbytes))
        alive.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(QwenCheckpoint, "_read", watched)
    model = load_qwen(folder, torch.bfloat16)
    assert sorted(name for name, _ in reads) == sorted(dict(model.named_parameters()))
    stored = [array for file in folder.glob("*.safetensors") for array in load_file(file).values()]
    assert sum(size for _, size in reads) == sum(array.nbytes for array in stored)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_what_needs_no_conversion_is_the_file_itself(folder: Path) -> None:
    """Loading adds nothing to a process that is not on disk, but the module's own objects."""
    big = {"hidden_size": 512, "kv_channels": 128, "intermediate_size": 4096, "vocab_size": 20000}
    at = write_tiny_qwen(folder.parent / "big", **big)
    size = sum(file.stat().st_size for file in at.glob("*.safetensors"))
    script = """
import sys, threading, time, torch
from kilotune.models.qwen import load_qwen
def now():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["RssAnon"].split()[0]) * 1024
load_qwen(sys.argv[1])
before, top, done = now(), 0, False
def watch():
    global top
    while not done:
        top = max(top, now())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
model = load_qwen(sys.argv[2], getattr(torch, sys.argv[3]))
done = True
thread.join()
print(max(top, now()) - before)
"""

    def added(dtype: str) -> int:
        command = [sys.executable, "-c", script, str(folder), str(at), dtype]
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
        return int(ended.stdout)

    assert size > 100e6
    assert added("float32") < 0.1 * size  # pages of the files
    assert added("bfloat16") < 0.75 * size  # half of it, and the largest tensor on its way


def test_training_changes_no_file(folder: Path) -> None:
    before = {file: file.read_bytes() for file in folder.iterdir()}
    model = load_qwen(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert np.abs(logits(model) - reference()).max() > 1
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_bin_files_are_refused_with_a_command_that_converts_them(
    tmp_path: Path, folder: Path
) -> None:
    at = write_tiny_qwen(tmp_path / "it's old")
    for shard in sorted(at.glob("*.safetensors")):
        tensors = {name: torch.from_numpy(array) for name, array in load_file(shard).items()}
        torch.save(tensors, at / f"pytorch_{shard.stem}.bin")
        shard.unlink()
    (at / "model.safetensors.index.json").unlink()
    with pytest.raises(KilotuneError, match="pickles") as caught:
        load_qwen(at)
    command = caught.value.fix.removeprefix("Convert them: ")
    assert "weights_only=True" in command
    assert command.startswith("python -c ")
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True)
    assert np.array_equal(logits(load_qwen(at)), logits(load_qwen(folder)))


def test_what_is_no_plain_language_model_is_refused_clearly(tmp_path: Path) -> None:
    write_tiny_qwen(tmp_path)
    before = (tmp_path / "config.json").read_text()
    cases = [
        ({"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "quantised"),
        ({"visual": {"layers": 48}}, "visual"),
        ({"no_bias": False, "rotary_pct": 0.5}, "rotary_pct, no_bias"),
        ({"kv_channels": 16}, "kv_channels"),
        ({"num_hidden_layers": 4}, r"lacks transformer\.h\.3\.attn"),
        ({"num_hidden_layers": 2}, r"also holds transformer\.h\.2\.attn"),
    ]
    for changes, said in cases:
        edit(tmp_path, **changes)
        with pytest.raises(KilotuneError, match=said):
            load_qwen(tmp_path)
        (tmp_path / "config.json").write_text(before)
    config = json.loads(before)
    del config["seq_length"], config["kv_channels"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(KilotuneError, match="without kv_channels, seq_length"):
        load_qwen(tmp_path)
    (tmp_path / "config.json").write_text(before)
    for shard in tmp_path.glob("*.safetensors"):
        shard.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(KilotuneError, match="no safetensors files"):
        load_qwen(tmp_path)


def test_it_is_loaded_wherever_models_are_and_its_own_code_is_not(tmp_path: Path) -> None:
    at = write_tiny_qwen(tmp_path)
    for name in ("configuration_qwen", "modeling_qwen", "tokenization_qwen"):
        (at / f"{name}.py").write_text("raise RuntimeError('run')")
    for trust in (False, True):
        settings = ModelSettings(name=str(at), trust_remote_code=trust)
        source = locate(settings)
        assert source == locate_tokenizer(settings) == locate_config(settings)
        assert (source.place, source.has_tokenizer) == (str(at), True)
        assert source.config.to_dict() == load_qwen(at).config.to_dict() | {"dtype": None}
        model = source.model(torch.float32)
        assert np.abs(logits(model) - reference()).max() < 1e-4
        assert model.name_or_path == str(at)
        tokenizer = source.tokenizer()
        assert tokenizer.encode("é<|im_end|>") == [0xC3, 0xA9, 258]
        assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id) == (464, 256, 256)


def test_a_tokenizer_json_in_the_folder_is_preferred(tmp_path: Path) -> None:
    at = write_tiny_qwen(tmp_path)
    tokenizer = qwen_tokenizer(at / "qwen.tiktoken")
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(at)
    (at / "qwen.tiktoken").unlink()
    again = source_at(at).tokenizer()
    assert again.encode("ab") == [97, 98]
    assert again.chat_template == "{{ messages }}"


def test_lower_layers_can_stay_on_disk(folder: Path) -> None:
    source = source_at(folder)
    recipe = load_recipe(settings={"data": {"train": "x.csv"}}, overrides=["tune.layers=top:1"])
    size = 4 * sum(p.numel() for p in load_qwen(folder).parameters())
    assert streamed_below(source, recipe.tune, torch.float32, size) == 0
    assert streamed_below(source, recipe.tune, torch.float32, size - 1) == 2
    one = load_streamed(source, torch.float32, 2)
    assert len([n for n, _ in one.named_parameters() if "layers" in n]) == 12  # of the third
    other = load_qwen(folder)
    assert np.array_equal(logits(one), logits(other))
    assert one.generation_config.to_dict() == other.generation_config.to_dict()


def test_base_and_chat_models_stop_where_their_own_code_stops(tmp_path: Path) -> None:
    base, chat = write_tiny_qwen(tmp_path / "base"), write_tiny_qwen(tmp_path / "chat", chat=True)
    assert source_at(base).stop_ids() == (256,)
    assert source_at(chat).stop_ids() == (256, 258, 257)  # end, <|im_end|>, <|im_start|>
    decoding = load_qwen(chat).generation_config
    assert (decoding.top_p, decoding.do_sample, decoding.repetition_penalty) == (0.8, True, 1.1)
    assert not {"chat_format", "max_window_size"} & decoding.to_dict().keys()


def test_a_hub_id_in_the_cache_is_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    home = tmp_path / "models--made--tiny-qwen"
    at = write_tiny_qwen(home / "snapshots" / ("0" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    settings = ModelSettings(name="made/tiny-qwen")
    assert locate(settings) == locate_tokenizer(settings) == source_at(at, settings)
    assert locate_tokenizer(ModelSettings(name="made/another")).place == "made/another"
