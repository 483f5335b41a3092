"""The local launcher: real process trees of runs that train nothing, and one study that does."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.sweeps.gpus import gpu_names
from convolt.sweeps.pool import make_context
from convolt.sweeps.slots import make_slots
from convolt.training.machine import Machine
from in_process import type_here

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests/fake_sweep.py"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a launcher in a process group of its own; it and its runs are ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def make(*command: Any) -> subprocess.Popen[str]:
        with (tmp_path / "stderr").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield make
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def fake(start: Any, tmp_path: Path) -> Callable[..., Any]:
    """Start a launcher of runs that train nothing: fake(["ok", "raise"], retries=1)."""
    return lambda kinds, **options: start(FAKE, tmp_path, json.dumps({"kinds": kinds} | options))


def outcome(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for a launcher and return what it says of its runs."""
    output, _ = process.communicate(timeout=60)
    return json.loads(output)  # type: ignore[no-any-return]


def status(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "status.json").read_text())  # type: ignore[no-any-return]


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())  # type: ignore[no-any-return]


def most_at_once(results: Iterable[dict[str, Any]]) -> int:
    events = [event for result in results for event in ((result["began"], 1), (result["ended"], -1))]
    return max(accumulate(change for _, change in sorted(events)))


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Tell whether a process is there, and more than a zombie that init has not seen to."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, by their parents."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(tuple(map(int, line.split())) for line in found.splitlines())
    below: list[int] = [pid]
    for each in below:
        below += [child for child, parent in parents.items() if parent == each]
    return below[1:]


def pids(folder: Path) -> list[int]:
    return [int(text) for file in folder.glob("run*/pids") for text in file.read_text().split()]


def test_unequal_durations_never_put_two_runs_into_one_slot(fake: Any, tmp_path: Path) -> None:
    durations = [0.6, 0.1, 0.2, 0.05, 0.3, 0.1, 0.2, 0.1]
    runs = outcome(fake([f"ok {seconds}" for seconds in durations], gpus=["3", "GPU-b", "3", "GPU-b"]))
    assert {run["state"] for run in runs} == {"finished"}
    results = [read(file) for file in tmp_path.glob("run*/result.json")]
    assert {(result["slots"], result["threads"]) for result in results} == {("4", "1")}
    assert [most_at_once(r for r in results if r["gpu"] == gpu) for gpu in ("3", "GPU-b")] == [2, 2]


def test_one_slot_runs_one_after_the_other_beside_files_that_are_named_like_pythons_own(
    fake: Any, tmp_path: Path
) -> None:
    for name in ("logging", "random", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    outcome(fake(["ok 0.1"] * 3, gpus=["0"]))
    assert most_at_once(map(read, tmp_path.glob("run*/result.json"))) == 1


def test_a_run_that_raises_exits_or_is_killed_fails_alone(fake: Any, tmp_path: Path) -> None:
    kinds = ["raise", "exit", "kill", "nothing", "early", "hang", "ok"]
    runs = outcome(fake(kinds, timeout=1.5))
    reasons = {
        "raise": "ValueError: what a pity",
        "exit": "left by sys.exit(7)",
        "kill": "killed by SIGKILL (out of memory?)",
        "nothing": "ended with status 0 and without a result: see output.log",
        "early": "nothing there",
        "hang": "took longer than 0.025 minutes",
    }
    for number, (kind, run) in enumerate(zip(kinds, runs, strict=True)):
        folder = tmp_path / f"run{number}"
        assert run["state"] == ("finished" if kind == "ok" else "failed")
        assert status(folder)["state"] == run["state"]
        if kind != "ok":
            assert run["reason"] == reasons[kind]
            assert status(folder)["error"].splitlines()[0] == reasons[kind]
        assert ("hello from" in (folder / "output.log").read_text()) == (kind != "early")
    assert 'raise ValueError("what a pity' in status(tmp_path / "run0")["traceback"]
    assert "sys.exit(7)" in status(tmp_path / "run1")["traceback"]
    assert not [pid for pid in pids(tmp_path) if alive(pid)]


def test_a_failed_run_is_tried_again_as_often_as_asked(fake: Any) -> None:
    runs = outcome(fake(["second", "raise", "early"], retries=2))
    assert [(run["state"], run["attempts"]) for run in runs] == [("finished", 2), ("failed", 3), ("failed", 1)]


def test_stop_on_error_starts_no_more_and_lets_the_others_end(fake: Any) -> None:
    runs = outcome(fake(["ok 0.5", "raise", "ok", "ok"], stop_on_error=True))
    assert [run["state"] for run in runs] == ["finished", "failed", "waiting", "waiting"]


@pytest.mark.parametrize(
    ("number", "group", "kind"),
    [(signal.SIGINT, False, "hang"), (signal.SIGINT, True, "hang"), (signal.SIGTERM, True, "deaf")],
)
def test_a_signal_stops_all_runs_within_seconds(
    fake: Any, tmp_path: Path, number: signal.Signals, group: bool, kind: str
) -> None:
    process = fake([kind, kind, "ok"])
    wait_until(lambda: len(pids(tmp_path)) == 4)
    everything = [*pids(tmp_path), *descendants(process.pid)]
    started = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    runs = outcome(process)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert [run["state"] for run in runs] == ["interrupted", "interrupted", "waiting"]
    if kind == "hang":
        assert status(tmp_path / "run0")["state"] == "interrupted"
    wait_until(lambda: not any(map(alive, everything)), 5)
    assert time.monotonic() - started < 8


def test_runs_go_with_a_killed_launcher_and_can_go_on(fake: Any, tmp_path: Path) -> None:
    process = fake(["hang", "hang"])
    wait_until(lambda: len(pids(tmp_path)) == 4)
    everything = [*pids(tmp_path), *descendants(process.pid)]
    assert len(everything) > 4
    process.kill()
    wait_until(lambda: not any(map(alive, everything)), 5)
    with FileLock(tmp_path / "run0/.lock", timeout=0):
        assert status(tmp_path / "run0")["state"] == "running"  # and the lock is free: cut off


def test_the_death_of_the_fork_server_leaves_nothing_behind(fake: Any, tmp_path: Path) -> None:
    process = fake(["hang", "hang", "ok"], timeout=20)
    wait_until(lambda: len(pids(tmp_path)) == 4)
    server = next(pid for pid in descendants(process.pid) if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(server, signal.SIGKILL)
    runs = outcome(process)
    assert [run["state"] for run in runs] == ["failed", "failed", "finished"]
    wait_until(lambda: not any(map(alive, pids(tmp_path))), 5)


def test_a_run_that_another_process_holds_is_left_to_it(fake: Any, tmp_path: Path) -> None:
    (tmp_path / "run0").mkdir()
    with FileLock(tmp_path / "run0/.lock"):
        runs = outcome(fake(["ok", "ok"]))
    assert [run["state"] for run in runs] == ["held elsewhere", "finished"]
    assert runs[0]["reason"] == "another process is at work in its directory"


def test_a_run_that_was_let_go_unfinished_is_taken_up(fake: Any, tmp_path: Path) -> None:
    (tmp_path / "run0").mkdir()
    with FileLock(tmp_path / "run0/.lock"):
        process = fake(["ok", "ok 1"])
        wait_until(lambda: "held elsewhere" in (tmp_path / "stderr").read_text())
    assert [run["state"] for run in outcome(process)] == ["finished", "finished"]


def test_finished_runs_start_no_process(fake: Any, tmp_path: Path) -> None:
    outcome(fake(["ok", "ok"]))
    before = (tmp_path / "run0/output.log").read_text()
    runs = outcome(fake(["ok", "ok"]))
    assert [(run["state"], run["attempts"]) for run in runs] == [("finished", 0)] * 2
    assert (tmp_path / "run0/output.log").read_text() == before
    assert outcome(fake(["ok 0.01", "ok"]))[0]["attempts"] == 1  # its settings have changed


def test_slots_share_the_machine_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolt.sweeps.slots.count_cores", lambda: 8)
    shares = [
        (make_slots(runs, gpus, n_jobs, per_gpu), expected)
        for runs, gpus, n_jobs, per_gpu, expected in (
            (20, [], None, 1, [(None, 1)] * 8),
            (2, [], None, 1, [(None, 4)] * 2),
            (20, [], 3, 1, [(None, 2)] * 3),
            (20, [], 16, 1, [(None, 1)] * 16),
            (20, ["0", "2"], None, 2, [("0", 2), ("2", 2), ("0", 2), ("2", 2)]),
            (20, ["0", "1"], 1, 1, [("0", 8)]),
            (1, ["0", "1"], None, 1, [("0", 8)]),
        )
    ]
    for slots, expected in shares:
        assert [(slot.gpu, slot.threads) for slot in slots] == expected
        assert {slot.parallel for slot in slots} == {len(expected)}


def test_auto_threads_are_those_of_the_slot(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLT_THREADS", "3")
    assert Machine.of(Settings.of(settings("trainer.threads=auto")).trainer).threads == 3
    assert Machine.of(Settings.of(settings("trainer.threads=5")).trainer).threads == 5


def test_a_study_that_was_killed_ends_with_the_same_results(
    start: Any, settings: Any, data_root: Path, tmp_path: Path
) -> None:
    from convolt.training.run import run

    options = ["model=lenet", "data=digits", "trainer.max_epochs=4", "data.batch_size=256", "pictures.enabled=false"]
    overrides = [*options, f"data.root={data_root}", "trainer.threads=1", "hydra.sweep.dir=study"]
    typed = ["study=optimizers", "hydra.sweeper.tune=null", "seed=0", *overrides]
    process = start(ROOT / "train.py", *typed)
    wait_until(lambda: list(tmp_path.glob("study/*/seed=0/checkpoints/*.ckpt")))
    time.sleep(random.random() * 2)
    everything = descendants(process.pid)
    process.kill()
    wait_until(lambda: not any(map(alive, everything)), 10)
    done = type_here(typed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "study"
    for row in ("sgd", "momentum", "adam"):
        again = read(tmp_path / f"study/{row}/seed=0/result.json")
        once = run(settings(*options, f"optim={row}", "seed=0"), tmp_path / row)
        assert again["metrics"] == once["metrics"]
        assert again["config_hash"] == once["config_hash"]


def test_gpus_and_their_slices_keep_the_names_that_they_were_given() -> None:
    assert gpu_names(2, None, "") == ["0", "1"]
    assert gpu_names(2, "3, GPU-5a", "") == ["3", "GPU-5a"]
    assert gpu_names(1, "2,-1,3", "") == ["2"]  # CUDA stops at what it does not know
    assert gpu_names(1, "MIG-a,MIG-b", "") == ["MIG-a", "MIG-b"]  # a process sees one slice at a time
    listed = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-one)
  MIG 3g.20gb     Device  0: (UUID: MIG-a)
  MIG 3g.20gb     Device  1: (UUID: MIG-b)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-two)
"""
    assert gpu_names(1, None, listed) == ["MIG-a", "MIG-b", "GPU-two"]
    assert gpu_names(1, "1", listed) == ["1"]
    assert gpu_names(2, None, "GPU 0: H100 (UUID: GPU-x)\nGPU 1: H100 (UUID: GPU-y)\n") == ["0", "1"]


def test_a_temporary_folder_of_too_long_a_path_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", refuse)
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/long")
    with pytest.raises(UserError, match=r"through /long \(AF_UNIX path too long\): set TMPDIR to a folder"):
        make_context([])
