"""llama.cpp, asked over its server's own HTTP interface on this machine.

The server is that of `xllamacpp` (MIT), which has llama.cpp compiled inside, or any `llama-server`
that runs already, by its address. Its interface: llama.cpp's tools/server/README.md.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.exports.finished import Decoding, Finished
from kilotune.system.extras import extra
from kilotune.verification.programs import Artefact, Put, turns_of_text

# Types of weights that do not round further what was judged in another.
EXACT = {
    "float32": {"F32"}, "bfloat16": {"F32", "BF16", "F16"}, "float16": {"F32", "F16"},
}  # fmt: skip
# Of so many next tokens probabilities are asked.
SEEN = 200
SECONDS = 600
GET_IT = (
    "pip install 'kilotune[llama-cpp]'; or start a server of llama.cpp, llama-server -m FILE, and "
    "give its address: --at http://127.0.0.1:8080"
)


@dataclass(slots=True)
class LlamaCpp:
    """A server of llama.cpp with one GGUF file, at `address`."""

    address: str
    title: str
    form: str
    size: int
    decoding: Decoding
    stop_id: int
    quantised: bool
    greedy: bool
    context: int
    server: Any = None

    @classmethod
    def of(cls, artefact: Artefact) -> Self:
        """The GGUF file of an export. Raises KilotuneError where there is none, or no llama.cpp."""
        finished, file = artefact.finished, _file(artefact.path)
        server, address = None, artefact.at.rstrip("/")
        if not address:
            server = _started(file, finished)
            address, title = server.listening_address, f"xllamacpp {_version()}"
        props = _get(f"{address}/props")
        if artefact.at:
            title = f"llama.cpp {props.get('build_info', '')}".strip()
        form = _type(str(props.get("model_ftype", ""))) or file.stem
        exact = form in EXACT.get(finished.dtype, ())
        quantised = not exact or finished.recipe.model.quantization != "none"
        unasked = props["default_generation_settings"]["params"]
        return cls(
            address=address,
            title=title,
            form=f"GGUF {form}",
            size=file.stat().st_size,
            decoding=finished.decoding,
            stop_id=finished.template.stop_id,
            quantised=quantised,
            greedy=unasked["temperature"] <= 0,
            context=_context(finished),
            server=server,
        )

    def put(self, messages: Sequence[Message]) -> Put:
        """The prompt by the chat template and the tokenizer inside the file."""
        turns = turns_of_text(messages, "llama.cpp", "llama.cpp")
        text = self._post("apply-template", messages=turns)["prompt"]
        read = self._post("tokenize", content=text, add_special=True, parse_special=True)
        return Put(tuple(read["tokens"]))

    def answer(self, put: Put) -> tuple[int, ...]:
        """What is generated with the run's own decoding, ended by the file's own end tokens."""
        sampling = self.decoding.sampling
        made = self._post(
            "completion",
            prompt=list(put.token_ids),
            n_predict=self.decoding.max_new_tokens,
            temperature=0.0,
            repeat_penalty=sampling["repetition_penalty"],
            repeat_last_n=self.context,
            stop=list(self.decoding.stop_strings),
            return_tokens=True,
        )
        ended = (self.stop_id,) if made["stop_type"] == "eos" else ()
        return (*made["tokens"], *ended)

    def behind(self, put: Put, said: Sequence[int], tokens: Collection[int]) -> float | None:
        """By what the server says of the likeliest tokens; None for one that is not among them."""
        made = self._post(
            "completion",
            prompt=[*put.token_ids, *said],
            n_predict=1,
            temperature=0.0,
            n_probs=SEEN,
        )
        (first, *_) = made["completion_probabilities"] or [{"top_logprobs": []}]
        found = {one["id"]: one["logprob"] for one in first["top_logprobs"]}
        known = [found[token] for token in tokens if token in found]
        return max(found.values()) - max(known) if known else None

    def close(self) -> None:
        """Stop the server, if it was started here."""
        self.server = None

    def _post(self, name: str, **body: Any) -> dict[str, Any]:
        return _ask(f"{self.address}/{name}", json.dumps(body).encode())


def _type(named: str) -> str:
    """The type of the weights as files are called by it: `Q4_K_M` of `Q4_K - Medium`."""
    bare = re.sub(r"^(\(guessed\) )?(all |mostly )?", "", named)
    return re.sub(r" - ([SML])\w*$", r"_\1", bare)


def _file(path: Path) -> Path:
    """The GGUF file at `path` or in it; what turns images into tokens is none."""
    if path.suffix == ".gguf" and path.is_file():
        return path
    found = sorted(p for p in path.glob("*.gguf") if not p.name.startswith("mmproj"))
    if len(found) == 1:
        return found[0]
    what = "several GGUF files" if found else "no GGUF file"
    raise KilotuneError(
        f"{what} there",
        where=str(path),
        fix=f"Give one: kilotune verify {found[0] if found else 'FILE.gguf'}; "
        "`kilotune export RUN --to gguf` makes them",
    )


def _started(file: Path, finished: Finished) -> Any:
    engine = extra("xllamacpp", where="llama.cpp", fix=GET_IT)
    params = engine.CommonParams()
    params.model.path = str(file)
    params.n_ctx = _context(finished)
    params.n_parallel = 1
    params.hostnames, params.port = ["127.0.0.1"], 0  # any that is free
    params.warmup = False
    params.verbosity = 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = torch.get_num_threads()
    try:
        return engine.Server(params)
    except Exception as error:  # the binding's own, for every way a file can be wrong
        raise KilotuneError(
            f"llama.cpp cannot load it ({error})", where=str(file), fix="Convert it again"
        ) from error


def _context(finished: Finished) -> int:
    """Tokens of the longest prompt and answer together, and one that is asked behind them."""
    return finished.recipe.data.max_length + finished.decoding.max_new_tokens + 1


def _version() -> str:
    from importlib.metadata import version

    return version("xllamacpp")


def _get(address: str) -> dict[str, Any]:
    return _ask(address, None)


def _ask(address: str, body: bytes | None) -> dict[str, Any]:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise KilotuneError(
            f"the server refuses ({error.code}: {said})",
            where=address,
            fix="Use a llama.cpp of today, whose interface is that of tools/server/README.md",
        ) from error
    except (OSError, ValueError) as error:
        raise KilotuneError(
            f"no server of llama.cpp answers ({error})", where=address, fix=GET_IT
        ) from error
