"""Signals: what is raised, collected and restored, and processes that end with their parent."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from convolt.system.signals import (
    STOP_SIGNALS,
    Interrupted,
    collect_signals,
    handle_signals,
    interrupt_and_resend,
    interrupt_on_signals,
)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


def test_the_first_signal_interrupts_and_the_second_would_end_the_process() -> None:
    before = handlers()
    with interrupt_on_signals():
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert handlers() == [signal.SIG_DFL] * len(STOP_SIGNALS)
    assert (caught.value.number, caught.value.exit_status) == (signal.SIGTERM, 143)
    assert handlers() == before


def test_a_second_ctrl_c_does_not_end_interactive_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", "In: ", raising=False)
    before = handlers()
    with interrupt_on_signals():
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


def test_signals_are_collected_in_order() -> None:
    before = handlers()
    with collect_signals() as received:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
    assert received == [signal.SIGUSR1, signal.SIGINT]
    assert handlers() == before


def test_an_interrupting_signal_reaches_the_previous_handler_after_the_block() -> None:
    with collect_signals([signal.SIGUSR2]) as received:
        with interrupt_and_resend([signal.SIGUSR2]):
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGUSR2)
            assert received == []
        assert received == [signal.SIGUSR2]


def test_other_threads_install_no_handler() -> None:
    before, inside = handlers(), []

    def look() -> None:
        with handle_signals(signal.SIG_IGN):
            inside.extend(handlers())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert inside == before


def test_a_process_dies_with_its_parent() -> None:
    code = "import os, time; from convolt.system.signals import die_with_parent; die_with_parent(lambda: os.read(0, 1))"
    process = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(100)"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 1
