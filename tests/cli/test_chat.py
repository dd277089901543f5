"""`kilotune chat` without a terminal: scripted input, plain output."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kilotune.cli import chat
from kilotune.cli.main import app
from kilotune.workflows.chat import BASE, TUNED, Chat

runner = CliRunner()


def talked(run: Path, *lines: str, options: tuple[str, ...] = ()) -> list[str]:
    done = runner.invoke(app, ["chat", str(run), *options], input="\n".join(lines) + "\n")
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_orders_and_answers_come_as_plain_lines(tiny_run: Path) -> None:
    lines = talked(
        tiny_run, "/set temperature 0.7", "a film", "", "/base", "/set top_k 20", "a film", "/what",
        "/set warmth 1", "/reset", "/quit", "never asked",
    )  # fmt: skip
    assert lines[0] == "temperature is 0.7"
    assert lines[1].startswith("base model: ")
    assert lines[2].startswith("tuned model: ")
    assert lines[3:5] == ["the base model is not shown", "top_k is 20"]
    assert lines[5].startswith("tuned model: ")
    assert lines[6].startswith("/set ")
    assert "no decoding setting 'warmth'" in lines[-2]
    assert lines[-1] == "forgotten"


def test_ctrl_c_stops_the_answer_and_not_the_program(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Chat.ask

    def ask(self, name, text, show):  # type: ignore[no-untyped-def]
        if text == "stop":
            show("as far as")
            raise KeyboardInterrupt
        whole(self, name, text, show)

    monkeypatch.setattr(Chat, "ask", ask)
    lines = talked(tiny_run, "stop", "go on", options=("--no-base",))
    assert lines[0] == f"{TUNED}: as far as [stopped]"
    assert lines[1].startswith(f"{TUNED}: ")
    assert len(lines) == 2


def test_what_ctrl_c_writes_behind_the_answers_does_not_wrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = Console(file=io.StringIO(), width=60)
    monkeypatch.setattr(chat, "out", console)
    lines = console.render_lines(chat._columns({BASE: "a " * 99, TUNED: "b"}), pad=False)
    widths = {sum(segment.cell_length for segment in line) for line in lines}
    assert len(lines) > 3
    assert max(widths) + len("^C") < 60
