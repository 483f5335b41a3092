"""How many runs share a GPU, and the daemons of MPS, which a script stands in for."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from convolt.sweeps.child import wait_for_gpu
from convolt.sweeps.gpu_share import TrainingStep, choose_share, measure_steps
from convolt.sweeps.gpus import Gpu
from convolt.sweeps.mps_daemon import share_by_mps
from convolt.sweeps.slots import make_slots

FAKE = Path(__file__).resolve().parents[1] / "fake_gpus_sweep.py"
H100, T4 = Gpu("GPU-h", 80 * 2**30, 132), Gpu("GPU-t", 15 * 2**30, 40)
CONTROL = """#!/bin/sh
# Records how it is called; answers as long as there is a daemon in its folder.
folder=${CUDA_MPS_PIPE_DIRECTORY:-$RECORD/none}
if [ "$1" = -f ]; then
    echo "start $CUDA_VISIBLE_DEVICES $folder $CUDA_MPS_LOG_DIRECTORY" >> "$RECORD/calls"
    [ "$BEHAVIOR" = refuses ] && { echo "no permission"; exit 1; }
    echo $$ > "$folder/daemon"; echo $$ >> "$RECORD/daemons"
    while true; do sleep 0.05; done
fi
read -r request
[ "$BEHAVIOR" = active ] && exit 0
[ -f "$folder/daemon" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
[ "$request" = quit ] && { echo "quit" >> "$RECORD/calls"; kill "$(cat "$folder/daemon")"; }
exit 0
"""


def test_runs_share_a_gpu_until_they_fill_it() -> None:
    million = 10**6
    lenet = TrainingStep("lenet", 12, 128 * 650_000, 15 * million, 16 * million)
    resnet20 = TrainingStep("resnet20", 70, 128 * 41 * million, 667 * million, 671 * million)
    resnet18 = TrainingStep("resnet18", 66, 128 * 556 * million, 2023 * million, 2202 * million)
    shares = [
        choose_share(step, gpu, cores).runs
        for step, gpu, cores in (
            (lenet, H100, 16), (lenet, H100, 3), (lenet, H100, 0), (lenet, T4, 16),
            (resnet20, H100, 16), (resnet20, T4, 16), (resnet18, H100, 16),
        )
    ]  # fmt: skip
    assert shares == [8, 3, 1, 7, 2, 1, 1]
    assert choose_share(lenet, Gpu("small", 5 * 2**30, 132), 16).runs == 2
    assert choose_share(lenet, Gpu("tiny", 2**30, 132), 16).runs == 1
    # 3 passes of 83.2 million multiply-adds, and twice 15 MB, by 132 multiprocessors; 0.3 ms and 12 layers of 50 us.
    assert choose_share(lenet, H100, 16).reason == (
        "a step of lenet takes a GPU 0.042 ms and the host 0.9; memory for 47, cores for 16, at most 8"
    )
    greedy = TrainingStep("lenet", 12, 128 * 650_000, 15 * million, 16 * million, takes_all=True)
    assert choose_share(greedy, H100, 16).runs == 1


def test_a_step_is_measured_by_its_network(settings: Any) -> None:
    steps = measure_steps(
        [
            settings("model=lenet", "data=mnist", "data.batch_size=100"),
            settings("model=resnet20", "data=cifar10", "debug.batch_size=10", "trainer.find_batch_size=true"),
        ]
    )
    assert [(step.network, step.multiply_adds, step.takes_all) for step in steps] == [
        ("lenet", 100 * 416_520, False), ("resnet20", 10 * 40_551_040, True),
    ]  # fmt: skip
    lenet = steps[0]
    assert lenet.training_bytes - lenet.activation_bytes == 4 * 4 * 61_706
    said = measure_steps([settings("model=vgg16", "data=cifar10", "data.image_size=8")])
    assert said == "VGG cannot take 8x8 images: use data.image_size=32 or more"


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Give a temporary folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def stand_in(tmp_path: Path, temporary: Path) -> Callable[[str], dict[str, str]]:
    """Lay a stand-in of the control daemon down; returns the environment that finds it."""

    def lay(behavior: str = "") -> dict[str, str]:
        (tmp_path / "bin").mkdir()
        control = tmp_path / "bin/nvidia-cuda-mps-control"
        if behavior != "missing":
            control.write_text(CONTROL)
            control.chmod(0o755)
        env = {"RECORD": str(tmp_path), "BEHAVIOR": behavior, "TMPDIR": str(temporary)}
        env |= {"CUDA_MPS_PIPE_DIRECTORY": "/there"} if behavior == "set" else {}
        return env | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    return lay


@pytest.fixture
def launch(stand_in: Any, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a launcher on fake GPUs with a fake daemon; everything is ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(kinds: list[str], **options: Any) -> subprocess.Popen[str]:
        env = os.environ | stand_in()
        command = [sys.executable, str(FAKE), str(tmp_path), json.dumps({"kinds": kinds} | options)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    for pid in daemons(tmp_path):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def daemons(folder: Path) -> list[int]:
    file = folder / "daemons"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def calls(folder: Path) -> list[list[str]]:
    file = folder / "calls"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def outcome(process: subprocess.Popen[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what a launcher found in the end, and the lines before."""
    output, _ = process.communicate(timeout=60)
    *lines, last = output.splitlines()
    return json.loads(last), lines


def test_small_runs_share_each_gpu_through_a_daemon_of_its_own(launch: Any, tmp_path: Path, temporary: Path) -> None:
    found, lines = outcome(launch(["ok 0.1"] * 6, jobs_per_gpu="auto", gpus=["0", "MIG-b"], cores=4))
    assert not found["torch"]
    assert lines[0] == (
        "6 runs, 0 finished before; 4 at a time on 2 GPU(s), 1 CPU thread each; jobs_per_gpu=auto takes 2: "
        "a step of lenet takes a GPU 0.042 ms and the host 0.9; memory for 47, cores for 2, at most 8"
    )
    assert lines[1] == "kernels of several runs by NVIDIA's MPS"
    started = {gpu: folder for _, gpu, folder, _ in (call for call in calls(tmp_path) if call[0] == "start")}
    assert list(started) == ["GPU-0", "MIG-b"]
    assert {(run["gpu"], run["mps"], run["slots"]) for run in found["runs"]} == {
        (gpu, folder, "4") for gpu, folder in started.items()
    }
    assert [call[0] for call in calls(tmp_path)].count("quit") == 2
    assert not any(map(is_alive, daemons(tmp_path)))
    assert not list(temporary.glob("convolt-mps-*"))


def test_without_being_asked_no_daemon_is_started(launch: Any, tmp_path: Path) -> None:
    found, lines = outcome(launch(["ok"] * 2, jobs_per_gpu=2))
    assert lines[0].endswith("2 at a time on 1 GPU(s), 8 CPU threads each")
    assert "MPS" not in lines[1]
    assert {(run["gpu"], run["mps"]) for run in found["runs"]} == {("0", None)}
    assert not calls(tmp_path)


@pytest.mark.parametrize(
    ("behavior", "reached", "reason"),
    [
        ("missing", True, "there is no nvidia-cuda-mps-control here"),
        ("refuses", True, "nvidia-cuda-mps-control does not start (no permission)"),
        ("active", True, "it is active already, and left as it is"),
        ("set", True, "CUDA_MPS_PIPE_DIRECTORY is set already, and MPS left as it is"),
        ("", False, "no process can compute through it"),
    ],
)
def test_without_mps_runs_take_turns(
    stand_in: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behavior: str, reached: bool, reason: str
) -> None:
    for name, value in stand_in(behavior).items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, str]] = []

    def describe(context: object, environments: list[dict[str, str]]) -> list[Gpu | None]:
        seen.extend(environments)
        return [H100] if reached or "CUDA_MPS_PIPE_DIRECTORY" not in environments[0] else [None]

    monkeypatch.setattr("convolt.sweeps.mps_daemon.describe_gpus", describe)
    slots = make_slots(2, ["0"], None, 2)
    with share_by_mps(get_context("spawn"), slots) as (found, line):
        assert found == slots
        assert line == f"without NVIDIA's MPS, runs take turns on the GPU: {reason}"
    if not reached:
        assert [each["CUDA_VISIBLE_DEVICES"] for each in seen] == ["0", "GPU-h"]
    assert not any(map(is_alive, daemons(tmp_path)))
    with share_by_mps(get_context("spawn"), make_slots(2, ["0", "1"], None, 1)) as (_, line):
        assert line == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_daemon_ends_with_the_launcher_however_that_ends(
    launch: Any, tmp_path: Path, temporary: Path, number: int
) -> None:
    process = launch(["hang", "hang"], mps=True, jobs_per_gpu=2)
    wait_until(lambda: len(list(tmp_path.glob("run*/pids"))) == 2)
    assert all(map(is_alive, daemons(tmp_path)))
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)  # and all that it has started, but what is in a group of its own
    else:
        process.send_signal(number)
    process.wait(20)
    wait_until(lambda: not any(map(is_alive, daemons(tmp_path))))
    wait_until(lambda: not list(temporary.glob("convolt-mps-*")))
    assert ["quit"] in calls(tmp_path)


def test_a_run_under_mps_waits_for_its_kernels_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []

    def synchronize() -> None:
        waited.append("")
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("torch.cuda.synchronize", synchronize)
    wait_for_gpu()
    assert not waited
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    wait_for_gpu()
    assert waited
