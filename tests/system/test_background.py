"""Work in a thread: one at a time, in order, and its errors."""

import threading
import time

import pytest

from convolt.system.background import Background


def test_one_piece_of_work_at_a_time_in_order() -> None:
    background, seen, gate = Background(), [], threading.Event()
    background.start(lambda: (gate.wait(5), seen.append(1)))
    threading.Timer(0.1, gate.set).start()
    background.start(lambda: seen.append(2))
    assert seen[0] == 1
    background.wait()
    assert seen == [1, 2]


def test_an_error_is_raised_once_by_who_waits_and_the_next_work_is_not_started_before() -> None:
    background, seen = Background(), []
    background.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.start(lambda: seen.append(1))
    assert seen == []
    background.wait()
    background.start(lambda: seen.append(2))
    background.wait()
    assert seen == [2]


def test_waiting_has_a_bound() -> None:
    background, gate = Background(), threading.Event()
    background.start(lambda: gate.wait(5))
    began = time.monotonic()
    background.wait(0.05)
    assert time.monotonic() - began < 2
    gate.set()
    background.wait()
