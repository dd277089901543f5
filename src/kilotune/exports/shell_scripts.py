"""The commands that serve or convert what was exported, as small shell scripts.

Written for vLLM 0.11 and later (`vllm serve`) and for llama.cpp since it is `ggml-org/llama.cpp`;
the programs themselves are not run by kilotune.
"""

import json
import shlex
from collections.abc import Sequence

from kilotune.exports.finished import NEUTRAL, Finished
from kilotune.models.public import on_hub, public_name

# What vLLM's --max-lora-rank may be (MaxLoRARanks in its config/lora.py).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
LARGEST_RANK = RANKS[-1]
LLAMA_CPP = (
    "# git clone https://github.com/ggml-org/llama.cpp, and its requirements.txt with pip; or say\n"
    "# where it is: LLAMA_CPP=FOLDER\n"
    "LLAMA_CPP=${LLAMA_CPP:-llama.cpp}"
)


def serve_adapter(finished: Finished, rank: int) -> str:
    """vLLM with the base model and its adapter of some rank; requests name the adapter."""
    rank = next(r for r in RANKS if r >= rank)
    return _script(
        f"vLLM with the base model and its adapter: requests say model '{finished.name}'.",
        *_stops(finished),
        _lines(
            'exec vllm serve "$BASE"',
            f'--enable-lora --max-lora-rank {rank} --lora-modules {finished.name}="$PWD"',
            *_options(finished),
        ),
        first=_base(finished.recipe.model.name),
    )


def serve_model(finished: Finished) -> str:
    """vLLM with the merged model."""
    return _script(
        f"vLLM with the tuned model: requests say model '{finished.name}'.",
        *_stops(finished),
        _lines(
            'exec vllm serve "$PWD"',
            f"--served-model-name {finished.name}",
            *_options(finished),
        ),
    )


def convert_script(finished: Finished, *, sees: bool) -> str:
    """llama.cpp's own converter, once as it is and once in 4 bits, and how to ask the model."""
    name = finished.name
    convert = 'python3 "$LLAMA_CPP/convert_hf_to_gguf.py" model'
    images = f"{convert} --mmproj --outfile mmproj-{name}.gguf"
    return _script(
        "GGUF files of the tuned model, for llama.cpp and whatever reads its format.",
        LLAMA_CPP,
        f"{convert} --outtype {_outtype(finished)} --outfile {name}.gguf",
        *(["# What turns images into tokens, in a file of its own.", images] if sees else []),
        "# Smaller, and no longer the model that was judged: judge it again before you rely on it.",
        f"# llama-quantize {name}.gguf {name}-Q4_K_M.gguf Q4_K_M",
        "# With the chat template that is inside the file, and decoding as in the run:",
        f"# {_llama_server(finished, sees)}",
        *_stops(finished),
    )


def create_script(finished: Finished) -> str:
    """A GGUF file by llama.cpp's converter, and Ollama's model of it by the Modelfile."""
    convert = 'python3 "$LLAMA_CPP/convert_hf_to_gguf.py" model'
    return _script(
        f"Ollama's model '{finished.name}', from the Modelfile beside this.",
        LLAMA_CPP,
        f"{convert} --outtype {_outtype(finished)} --outfile model.gguf",
        f"ollama create {finished.name} -f Modelfile",
        f"# ollama run {finished.name}",
    )


def _base(name: str) -> list[str]:
    """Where the base model is: on the Hub, or wherever whoever serves it has it."""
    given = "BASE=${BASE:?is to say where the base model is: BASE=FOLDER sh serve.sh}"
    if on_hub(name):
        given = f"BASE=${{BASE:-{shlex.quote(public_name(name))}}}"
    return [
        f"# The base model is called {json.dumps(public_name(name))}.",
        given,
        'if [ -d "$BASE" ]; then BASE=$(cd "$BASE" && pwd); fi',
    ]


def _stops(finished: Finished) -> list[str]:
    """A remark on the texts that end an answer, which no option of a server says."""
    texts = finished.decoding.stop_strings
    return [f'# Requests must say where answers end too: "stop": {json.dumps(texts)}'] * bool(texts)


def _options(finished: Finished) -> list[str]:
    """What vLLM would otherwise take from elsewhere: template, end tokens, decoding, precision."""
    decoding = finished.decoding
    used = {n: value for n, value in decoding.sampling.items() if value != NEUTRAL.get(n)}
    override = json.dumps({**used, "max_new_tokens": decoding.max_new_tokens})
    return [
        f"--dtype {finished.dtype}",
        '--chat-template "$PWD/chat_template.jinja"',
        '--generation-config "$PWD"',
        f"--override-generation-config {shlex.quote(override)}",
        '"$@"',
    ]


def _llama_server(finished: Finished, sees: bool) -> str:
    names = {
        "temperature": "--temp", "top_k": "--top-k", "top_p": "--top-p", "min_p": "--min-p",
        "repetition_penalty": "--repeat-penalty",
    }  # fmt: skip
    decoding = finished.decoding
    options = [f"{names[name]} {value:g}" for name, value in decoding.sampling.items()]
    eyes = [f"--mmproj mmproj-{finished.name}.gguf"] if sees else []
    start = f"llama-server -m {finished.name}.gguf"
    return " ".join([start, *eyes, "--jinja", *options, f"-n {decoding.max_new_tokens}"])


def _outtype(finished: Finished) -> str:
    return {"bfloat16": "bf16", "float16": "f16"}.get(finished.dtype, "f32")


def _script(title: str, *lines: str, first: Sequence[str] = ()) -> str:
    """A script that works in its own folder, but for what it does `first`."""
    head = ["#!/bin/sh", f"# {title}", "set -e", *first, 'cd "$(dirname "$0")"']
    return "\n".join([*head, *lines]) + "\n"


def _lines(*parts: str) -> str:
    return " \\\n  ".join(parts)
