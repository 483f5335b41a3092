"""How a run of a sweep has ended: by its exit status, its directory, and who lost it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from convolt.runs.directory import RunDirectory
from convolt.sweeps.jobs import Job, State, decide_outcome
from convolt.system.files import read_json


@pytest.fixture
def job(settings: Any, tmp_path: Path) -> Job:
    return Job("run", settings(), tmp_path / "run")


def finish(job: Job) -> None:
    with RunDirectory(job.run_dir, job.cfg) as directory:
        directory.begin()
        directory.finish({"metrics": {}})


def fail(job: Job) -> None:
    with suppress(ValueError), RunDirectory(job.run_dir, job.cfg) as directory:
        directory.begin()
        raise ValueError("no\nmore")


@pytest.mark.parametrize(
    ("status", "known", "state", "reason"),
    [
        (75, {}, State.HELD, "another process is at work in its directory"),
        (143, {}, State.INTERRUPTED, "interrupted"),
        (1, {"stopping": True}, State.INTERRUPTED, "interrupted"),
        (143, {"lost": "took longer than 1 minutes"}, State.FAILED, "took longer than 1 minutes"),
        (-9, {}, State.FAILED, "killed by SIGKILL (out of memory?)"),
        (-11, {}, State.FAILED, "killed by SIGSEGV"),
        (0, {}, State.FAILED, "ended with status 0 and without a result: see output.log"),
        (None, {"lost": "its node was lost"}, State.FAILED, "its node was lost"),
    ],
)
def test_without_a_result_the_status_decides(
    job: Job, status: int | None, known: dict[str, Any], state: State, reason: str
) -> None:
    assert decide_outcome(job, status, pid=1, **known) == (state, reason, None)
    recorded = read_json(job.run_dir / "status.json")
    assert (recorded and recorded["error"]) == (reason if state == State.FAILED else None)


def test_a_result_counts_whatever_the_status_unless_the_run_was_forced(job: Job) -> None:
    finish(job)
    state, reason, result = decide_outcome(job, None, lost="its node was lost")
    assert (state, reason) == (State.FINISHED, "")
    assert result is not None
    job.cfg.force = True
    assert decide_outcome(job, 0)[0] == State.FINISHED
    assert decide_outcome(job, 1)[0] == State.FAILED


def test_what_the_run_has_recorded_is_the_reason_if_it_is_of_this_process(job: Job) -> None:
    fail(job)
    assert decide_outcome(job, 1)[:2] == (State.FAILED, "ValueError: no")
    assert decide_outcome(job, 1, pid=job.read_status()["pid"])[:2] == (State.FAILED, "ValueError: no")
    assert decide_outcome(job, -9, pid=1)[:2] == (State.FAILED, "killed by SIGKILL (out of memory?)")
