"""Being asked to stop: Ctrl-C, SIGTERM (batch systems, `kill`) and a terminal that was closed."""

import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

ASKING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def on_interrupt(handler: Callable[..., Any]) -> Iterator[None]:
    """Inside the `with`, `handler` is called for each signal of ASKING, in the main thread alone.

    In another thread signals are the host program's business, and so is a signal that the process
    was started to ignore, as `nohup` and shells do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in ASKING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _once_hung_up(handler)) for number in heeded}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def interrupt(*signal_arguments: object) -> None:
    """The handler that ends what is done as Ctrl-C does."""
    raise KeyboardInterrupt


def _once_hung_up(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, but first of all nothing is written to a terminal any more that was closed."""

    def handle(number: int, frame: Any) -> None:
        if number == getattr(signal, "SIGHUP", None):
            _let_go_of_terminal()
        handler(number, frame)

    return handle


def _let_go_of_terminal() -> None:
    """What is still said goes nowhere: to write to a closed terminal is an error."""
    with open(os.devnull, "w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # no file behind it
                # One that is gone is no terminal any more, but still no file.
                if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
                    os.dup2(nowhere.fileno(), stream.fileno())
