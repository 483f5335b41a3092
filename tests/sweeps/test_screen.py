"""The live table of a sweep on a terminal, and the plan of a dry run."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from convolt.sweeps import screen
from convolt.sweeps.cost import Cost
from convolt.sweeps.jobs import Job, State
from convolt.sweeps.study import PlannedRun


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


def test_a_plan_shows_what_each_row_costs_and_what_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Cost(100.0, 2, 3_000_000, 2_000_000, 600 << 20, "measured", "AMD EPYC")
    cases = [("sgd", "trial", 1000), ("sgd", "trial", 1001), ("sgd", "run", 0), ("adam", "untuned", 0)]
    runs = [PlannedRun(row, seed, ("data=mnist",), (f"seed={seed}",), f"{row}/{seed}") for row, _, seed in cases]
    jobs = [Job(str(run.folder), OmegaConf.create({}), tmp_path / str(run.folder)) for run in runs]
    kinds = [kind for _, kind, _ in cases]
    finished = replace(one, source="finished", runs=5)
    gpu = replace(one, device="NVIDIA H100")
    screen.show_plan("T", tmp_path, runs, jobs, costs=[finished, finished, one, gpu], kinds=kinds, power=["80% [b]"])
    shown = capsys.readouterr().out.partition("4 missing\n")[2]
    assert [re.split(r" {2,}", line.strip()) for line in shown.splitlines()] == [
        ["row", "runs", "a run", "in sum", "disk", "memory of a run", "from"],
        ["sgd data=mnist", "2 trials", "3.3 min", "6.7 min", "9.5 MiB", "600 MiB", "5 finished runs on AMD EPYC"],
        ["sgd data=mnist", "1 run", "3.3 min", "3.3 min", "4.8 MiB", "600 MiB", "a measured second on AMD EPYC"],
        [
            "adam data=mnist",
            "1 untuned",
            "100.0 s",
            "100.0 s",
            "4.8 MiB",
            "600 MiB",
            "a measured second on NVIDIA H100",
        ],
        ["in sum 10.0 min of processor time; 100.0 s of GPU time; 19.1 MiB on disk"],
        ["80% [b]"],
        [str(tmp_path)],
    ]
    screen.show_plan("", tmp_path, runs, jobs, costs=[None, None, one, None], kinds=kinds)
    shown = capsys.readouterr().out.partition("4 missing\n")[2]
    assert [re.split(r" {2,}", line.strip())[1:] for line in shown.splitlines()[1:4]] == [
        ["2 trials", *["not known"] * 4],
        ["1 run", "3.3 min", "3.3 min", "4.8 MiB", "600 MiB", "a measured second on AMD EPYC"],
        ["1 untuned", *["not known"] * 4],
    ]
    assert shown.splitlines()[4:] == [
        "in sum at least 3.3 min of processor time; 4.8 MiB on disk",
        "3 runs not known: hydra.sweeper.measure=true measures a second of each row",
        str(tmp_path),
    ]
    screen.show_plan("", tmp_path, runs, jobs)
    assert capsys.readouterr().out.endswith(f"4 runs: 4 missing\n{tmp_path}\n")
    assert screen._sum_lines([one, one], [True, False]) == [
        "in sum 6.7 min of processor time, 3.3 min of it still to come; 9.5 MiB on disk"
    ]
