import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from kilotune.system.signals import ASKING, interrupt, on_interrupt


@pytest.mark.parametrize("number", ASKING)
def test_every_request_to_stop_ends_as_ctrl_c_does(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), on_interrupt(interrupt):
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    try:
        with on_interrupt(interrupt):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_signals_to_its_program() -> None:
    seen = []

    def work() -> None:
        with on_interrupt(interrupt):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_is_said_after_the_terminal_was_closed_is_no_error() -> None:
    code = (
        "import sys, time\nfrom kilotune.system.signals import on_interrupt\n"
        "asked = []\n"
        "with on_interrupt(lambda *given: asked.append(given)):\n"
        "    print('ready', flush=True)\n"
        "    while not asked: time.sleep(0.01)\n"
        "    print('said to nobody', flush=True)\n"
        "sys.exit(7)\n"
    )
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs)
    os.close(theirs)
    assert os.read(ours, 100).strip() == b"ready"
    os.close(ours)  # whoever writes there now has an error
    child.send_signal(signal.SIGHUP)
    assert child.wait(timeout=60) == 7
