"""What every command shares: the terminal, progress on it, errors, JSON."""

import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from kilotune import distributed
from kilotune.cli.memory_limit import watch_torch
from kilotune.data.files.writers import to_json
from kilotune.data.finding import Finding, FindingsError
from kilotune.errors import KilotuneError
from kilotune.progress import Bar
from kilotune.system.os_errors import refusal
from kilotune.system.signals import interrupt, on_interrupt

UNUSABLE, INTERRUPTED, WANTING = 2, 130, 1

# Seconds between the lines that stand for a bar where there is no terminal.
EVERY = 60

# Results go to standard output, everything on the way there to standard error. Of processes that
# train together one speaks.
out = Console(highlight=False, quiet=not distributed.leads())
log = Console(stderr=True, highlight=False, quiet=not distributed.leads())


def put(console: Console, words: str | Text, *, lead: str | Text = "", style: str = "") -> None:
    """Print `words` behind `lead`; on a terminal further lines begin below the first word.

    A line never breaks inside a word: a path longer than the terminal is left to it, and is still
    whole when it is copied. Where there is no terminal (a pipe, a file), nothing is broken.
    """
    text = Text(words) if isinstance(words, str) else words
    before = Text(lead) if isinstance(lead, str) else lead
    for whole in text.split("\n", allow_blank=True):
        indent = " " * 2 * (len(whole.plain) - len(whole.plain.lstrip()))
        width = console.width - before.cell_len - len(indent)
        places = _line_starts(whole.plain, width) if console.is_terminal else []
        for number, line in enumerate(whole.divide(places)):
            line.rstrip()
            inner = indent if number else ""
            console.print(Text.assemble(before, inner, line, style=style), soft_wrap=True)
            before = Text(" " * before.cell_len)


def _line_starts(text: str, width: int) -> list[int]:
    """Where each line but the first begins, so that words stay whole in `width` columns."""
    starts, filled = [], 0
    for word in re.finditer(r"\s*\S+\s*", text):
        if filled and filled + cell_len(word[0].rstrip()) > width:
            starts.append(word.start())
            filled = 0
        filled += cell_len(word[0])
    return starts


class TerminalProgress:
    """Stages, lines and bars on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self._bars = RichProgress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=log,
            transient=True,
        )

    def stage(self, title: str) -> None:
        """Print the title of a new stage."""
        log.print(f"[bold]{title}[/bold]")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        put(log, line, lead="  ")

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar; one that opens inside another is drawn below it."""
        if not log.is_terminal:
            yield _Lines(title, total)
            return
        if not self._bars.tasks:
            self._bars.start()
        task = self._bars.add_task(title, total=total, note="")
        try:
            yield _TerminalBar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self._bars.stop()


class _Lines:
    """A bar in a log: a line every minute, so that long work is seen to go on."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total, self._done, self._note = title, total, 0, ""
        self._next = time.monotonic() + EVERY

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._note = note or self._note
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            said = f", {self._note}" if self._note else ""
            put(log, f"{self._title}: {self._done} of {self._total}{said}", lead="  ")


class _TerminalBar:
    def __init__(self, bars: RichProgress, task: Any) -> None:
        self._bars = bars
        self._task = task

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._bars.advance(self._task, steps)
        if note:
            self._bars.update(self._task, note=note)


@contextmanager
def command(as_json: bool = False) -> Iterator[None]:
    """Turn what a command raises into one line and an exit status."""
    quieten_libraries()
    watch_torch()
    try:
        with on_interrupt(interrupt):
            yield
    except KilotuneError as error:
        raise _refusal(error, as_json) from error
    except KeyboardInterrupt as error:
        log.print("kilotune: interrupted; what was done is kept", style="yellow")
        raise typer.Exit(INTERRUPTED) from error
    except Exception as error:
        # Whatever the system refuses (memory, space, rights, names), wherever it comes up.
        refused = refusal(error)
        if refused is None:
            raise
        raise _refusal(refused, as_json) from error


def _refusal(error: KilotuneError, as_json: bool) -> typer.Exit:
    if as_json:
        said = {"what": error.what, "where": error.where, "fix": error.fix}
        found = {"findings": error.findings} if isinstance(error, FindingsError) else {}
        print_json({"error": said, **found}, UNUSABLE)
    put(log, str(error), lead="kilotune: ", style="red")
    return typer.Exit(UNUSABLE)


def print_json(content: Any, status: int = 0) -> None:
    """One JSON document on standard output: the exit status, and the fields of `content`."""
    if distributed.leads():
        document = {"status": status, **shown(content)}
        sys.stdout.write(to_json(document, indent=None) + "\n")


def shown(value: Any) -> Any:
    """What is printed as JSON: what has sentences has them there beside its values."""
    if hasattr(value, "with_sentences"):
        return value.with_sentences()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: shown(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: shown(item) for name, item in value.items()}
    return [shown(item) for item in value] if isinstance(value, list | tuple) else value


def print_line(line: str) -> None:
    """One line on standard output as it is: a path in it can be copied, whatever its signs."""
    out.print(line, markup=False, soft_wrap=True)


def print_result(content: Any, line: str, *, as_json: bool, status: int = 0) -> None:
    """What a command comes to: `content` as a JSON document, or for a person `line`."""
    if as_json:
        print_json(content, status)
    else:
        print_line(line)


def one_line(text: str, limit: int = 60) -> str:
    """A text on one line, cut to `limit` signs."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def status_of(findings: Iterable[Finding]) -> int:
    """The exit status: WANTING if anything is worse than a note."""
    return WANTING if any(finding.severity != "note" for finding in findings) else 0


def quieten_libraries() -> None:
    """Keep the libraries' own bars and notices off the screen; their errors still come."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Where it is installed peft imports it, whatever the model, and it misses a kernel of its own.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
