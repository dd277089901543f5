"""Lines as they come out of a narrow terminal, and of a pipe."""

from io import StringIO
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kilotune.cli import terminal
from kilotune.cli.findings import print_each
from kilotune.cli.terminal import put
from kilotune.data.finding import finding

PATH = "/home/somebody/projects/reviews-of-2026/data/held-out/the_labelled_rows_of_march.csv"


def printed(words: str, lead: str = "", *, width: int = 40, terminal: bool = True) -> list[str]:
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=None)
    put(console, words, lead=lead)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_breaks_between_words_and_goes_on_below_the_first() -> None:
    words = "labels that differ by case, spaces or punctuation (3): data:2, data:7"
    assert printed(words, "error   ") == [
        "error   labels that differ by case,",
        "        spaces or punctuation (3):",
        "        data:2, data:7",
    ]


def test_a_path_longer_than_the_terminal_stays_in_one_piece() -> None:
    assert printed(f"left as it is: {PATH} exists already") == [
        "left as it is:", PATH, "exists already",
    ]  # fmt: skip


def test_a_pipe_gets_whole_lines() -> None:
    words = "one two three " * 20
    assert printed(words, "note    ", terminal=False) == [f"note    {words}".rstrip()]


def test_long_work_is_seen_to_go_on_in_a_log_too(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), force_terminal=False)
    monkeypatch.setattr(terminal, "log", console)
    clock = iter([0, 30, 61, 61, 70, 125, 125])
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with terminal.TerminalProgress().bar("tuning", 90) as bar:
        for note in ("loss 0.9", "loss 0.5", "", "loss 0.1"):
            bar.advance(10, note)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue() == "  tuning: 20 of 90, loss 0.5\n  tuning: 40 of 90, loss 0.1\n"


def test_lines_of_a_list_go_on_further_in() -> None:
    assert printed("a.csv: 2 kinds of errors\n  empty-text: rows without text (1)", "kilotune: ",
                   width=36) == [
        "kilotune: a.csv: 2 kinds of errors",
        "            empty-text: rows",
        "              without text (1)",
    ]  # fmt: skip


@given(st.lists(st.text("abc文件.é", min_size=1, max_size=12), min_size=1), st.integers(20, 60))
def test_no_word_is_broken_lost_or_past_the_edge(words: list[str], width: int) -> None:
    lines = printed(" ".join(words), "  ", width=width)
    assert " ".join(lines).split() == words
    assert all(cell_len(line) <= width or len(line.split()) == 1 for line in lines)


def test_findings_keep_their_column_in_a_narrow_terminal() -> None:
    console = Console(file=StringIO(), width=44, force_terminal=True, color_system=None)
    text = "rows without text [1]: data:2"
    found = finding("empty-text", ["data:2"], text=text, fix="Fill in the text")
    print_each([found], console)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().splitlines() == [
        "error   empty-text rows without text [1]:",
        "        data:2",
        "        Fill in the text.",
    ]
