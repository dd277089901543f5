"""The adapter of llama.cpp against a server of its interface that answers what a test says.

That the real one answers so is shown by `with_llama_cpp.py`.
"""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from kilotune.errors import KilotuneError
from kilotune.exports import export
from kilotune.exports.finished import open_finished
from kilotune.runs.record import RunFolder
from kilotune.workflows.verify import verify
from tests.support.tiny import CHATML


class Server:
    """What a llama-server with the tiny run's model says; `answers` are token ids by prompt."""

    def __init__(self, run: Path) -> None:
        self.template = open_finished(run).template
        self.rows = RunFolder(run).read_predictions()
        self.temperature, self.type = 0.0, "all F32"
        self.asked: list[dict[str, Any]] = []

    def props(self) -> dict[str, Any]:
        unasked = {"params": {"temperature": self.temperature}}
        return {
            "model_ftype": self.type, "build_info": "b1-abc",
            "default_generation_settings": unasked,
        }  # fmt: skip

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        tokenizer = self.template.tokenizer
        if path == "/apply-template":
            text = tokenizer.apply_chat_template(
                body["messages"], chat_template=CHATML, tokenize=False, add_generation_prompt=True
            )
            return {"prompt": text}
        if path == "/tokenize":
            return {"tokens": tokenizer.encode(body["content"], add_special_tokens=False)}
        self.asked.append(body)
        text = tokenizer.decode(body["prompt"])
        row = next(row for row in self.rows if row["prompt"] in text)
        if body.get("n_probs"):
            top = [{"id": 1, "logprob": -0.1}, {"id": row["tuned_token_ids"][0], "logprob": -0.35}]
            return {"tokens": [1], "completion_probabilities": [{"top_logprobs": top}]}
        said = list(row["tuned_token_ids"][:-1])
        if row is self.rows[0]:
            said[0] = 1
        return {"tokens": said, "stop_type": "eos", "completion_probabilities": []}


@pytest.fixture
def served(tiny_run: Path, tmp_path: Path) -> Iterator[tuple[Server, str, Path, Path]]:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    out = export(run, "gguf-instructions", tmp_path / "out")
    (out / "tiny.gguf").write_bytes(b"GGUF" + bytes(96))
    (out / "mmproj-tiny.gguf").write_bytes(b"GGUF")
    server = Server(run)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(server.props())

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self.reply(server.post(self.path, json.loads(self.rfile.read(length))))

        def reply(self, content: dict[str, Any]) -> None:
            raw = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{listening.server_port}/", out, run
    listening.shutdown()
    listening.server_close()


def test_the_prompts_of_the_test_are_put_greedily_and_differences_have_their_gap(
    served: tuple[Server, str, Path, Path],
) -> None:
    server, at, out, _ = served
    found = verify(out, at=at)
    assert (found.program, found.form, found.size) == ("llama.cpp b1-abc", "GGUF F32", 100)
    assert (found.prompts, found.equal, found.apart) == (16, 15, ())
    (parting,) = found.differences
    assert (parting.id, parting.token) == (server.rows[0]["id"], 0)
    assert parting.gap == pytest.approx(0.25)
    assert [fault["phrase"] for fault in found.faults] == ["verify-answers"]
    assert {body["temperature"] for body in server.asked} == {0.0}
    assert {body["n_predict"] for body in server.asked} == {1, 9}


def test_a_quantised_file_is_reported_and_one_that_samples_is_wrong(
    served: tuple[Server, str, Path, Path],
) -> None:
    server, at, out, _ = served
    server.type = "Q4_K - Medium"
    found = verify(out / "tiny.gguf", at=at)
    assert (found.form, found.quantised, found.faults) == ("GGUF Q4_K_M", True, ())
    server.temperature = 0.8
    assert [fault["phrase"] for fault in verify(out, at=at).faults] == ["verify-samples"]


def test_without_llama_cpp_or_a_server_it_says_how_to_get_one(
    served: tuple[Server, str, Path, Path],
) -> None:
    _, _, out, _ = served
    with pytest.raises(KilotuneError, match="no server of llama") as caught:
        verify(out, at="http://127.0.0.1:9")
    assert "llama-server -m FILE" in caught.value.fix
    (out / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(KilotuneError, match="several GGUF files"):
        verify(out, at="http://127.0.0.1:9")
