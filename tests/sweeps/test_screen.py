"""The live table of a sweep on a terminal."""

from io import StringIO
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from convolt.sweeps import screen
from convolt.sweeps.jobs import Job, State


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_the_table_on_a_terminal_shows_each_run_and_the_last_states(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=100, height=20, highlight=False, color_system=None)
    monkeypatch.setattr(screen, "_make_console", lambda: console)
    jobs = [Job(name, OmegaConf.create({}), tmp_path / name) for name in ("a", "b")]
    with screen.SweepScreen(jobs, "one at a time") as shown:
        jobs[0].state = State.RUNNING
        shown.update(jobs[0])
        jobs[0].state, jobs[0].result = State.FINISHED, {"epochs": 3, "metrics": {"test/accuracy": 0.5}, "seconds": 65}
        shown.update(jobs[0])
        jobs[1].state, jobs[1].reason = State.FAILED, "no more"
    lines = terminal.getvalue().splitlines()  # the last one shows the cursor again
    assert lines[0] == "2 runs, 0 finished before; one at a time"
    assert [line.split() for line in lines[-4:-2]] == [
        ["a", "finished", "3", "0.5000", "01:05"],
        ["b", "failed:", "no", "more"],
    ]
    assert lines[-2].startswith("1 finished, 1 failed; 00:0")


def test_durations_and_counts_read_well() -> None:
    seconds = (None, 7.4, 65, 3600, 36_000)
    assert [screen._format_duration(each) for each in seconds] == ["", "00:07", "01:05", "1:00:00", "10:00:00"]
    assert screen._format_counts(["done", "failed", "done"]) == "2 done, 1 failed"
